"""Craniofacial measurements from landmarks: distances, angles, ratios, left/right asymmetry.

Points are in mm, in RAS+ or any other frame: only the labels tell left from right. A value is NaN
where a landmark that it needs is NaN. numpy, float64.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fetal_jax import growth
from fetal_jax.growth import Ages
from fetal_jax.landmarks import MIDLINE, NAMES, PAIRS

# Least number of midline points and pairs to fit the midsagittal plane to: any three points lie
# in a plane.
PLANE_POINTS = 4

FacePoints = Mapping[str, np.ndarray]  # label -> [..., 3] mm


class Measurement(NamedTuple):
    """One number of a face."""

    key: str  # for a column of a table
    name: str  # the clinician's term, with the landmarks
    unit: str  # "mm", "°" or "%"
    labels: tuple[str, ...]  # the landmarks without which there is no number
    measure: Callable[[FacePoints], np.ndarray]  # to [...] in `unit`
    growth: Callable[[Ages], Ages] | None = None  # published mean at an age in weeks, in `unit`
    growth_source: str = ""
    of_plane: bool = False  # measured from the midsagittal plane, which is fitted to all landmarks


def choose_measurements(labels: Sequence[str]) -> tuple[Measurement, ...]:
    """Those of MEASUREMENTS that can be computed from landmarks of these labels; may be none."""
    labels = set(labels)
    plane = len(_plane_points(labels)) >= PLANE_POINTS
    return tuple(
        m for m in MEASUREMENTS if labels.issuperset(m.labels) and (plane or not m.of_plane)
    )


def measure_faces(
    points_mm: np.ndarray, labels: Sequence[str], measurements: Sequence[Measurement]
) -> np.ndarray:
    """The measurements of one face or of many.

    Args:
      points_mm: [..., L, 3]; NaN, or any other number that is not finite, where a landmark is
        absent or not to be used.
      labels: L names.
      measurements: M of them, as of `choose_measurements(labels)`.

    Returns:
      [..., M] float64 in each measurement's unit; NaN where there is none.

    Raises:
      ValueError: shapes do not agree, or a measurement needs other landmarks.
    """
    points_mm = np.asarray(points_mm, np.float64)
    if points_mm.shape[-2:] != (len(labels), 3):
        raise ValueError(
            f"expected points [..., {len(labels)}, 3], one a label, got {points_mm.shape}"
        )
    _check_labels(measurements, labels)
    there = np.isfinite(points_mm).all(axis=-1, keepdims=True)
    points_mm = np.where(there, points_mm, np.nan)
    at = {label: points_mm[..., i, :] for i, label in enumerate(labels)}
    values = np.empty((*points_mm.shape[:-2], len(measurements)))
    for i, measurement in enumerate(measurements):
        values[..., i] = measurement.measure(at)
    return values


def symmetrise_faces(points_mm: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Faces [..., L, 3] mm of which every asymmetry is 0: each the mean of itself and its mirror.

    Mirrored at its own plane of symmetry, left and right exchanged. NaN where a point or its
    partner is absent, where it is neither of the midline nor of a pair, and where there are too few
    points for a plane.
    """
    points_mm = np.asarray(points_mm, np.float64)
    at = {label: points_mm[..., i, :] for i, label in enumerate(labels)}
    partners = {a: b for pair in _plane_points(set(labels)) for a, b in (pair, pair[::-1])}
    if len(_plane_points(set(labels))) < PLANE_POINTS:
        return np.full_like(points_mm, np.nan)
    plane = _fit_midsagittal(at)
    gone = np.full(points_mm[..., 0, :].shape, np.nan)
    each = [
        0.5 * (at[label] + _reflect(at[partners[label]], *plane)) if label in partners else gone
        for label in labels
    ]
    return np.stack(each, axis=-2)


def find_usable(
    present: np.ndarray,
    visible: np.ndarray | None,
    confidence: np.ndarray,
    *,
    min_confidence: float,
    hidden: np.ndarray | None = None,
) -> np.ndarray:
    """Which landmarks [N, L] may be measured from: present, and visible or predicted confidently.

    Args:
      present: [N, L] bool.
      visible: [N, L] bool, or None where it is not known, as in a new scan.
      confidence: [N, L] in [0, 1], of the predictions; NaN where unknown, which counts as none.
      min_confidence: in [0, 1].
      hidden: [N, L] bool, predicted not to be visible: these may not.

    Raises:
      ValueError: shapes do not agree, or min_confidence is no probability.
    """
    present, confidence = np.asarray(present, bool), np.asarray(confidence, np.float64)
    visible = np.zeros_like(present) if visible is None else np.asarray(visible, bool)
    if present.ndim != 2 or not present.shape == visible.shape == confidence.shape:
        raise ValueError(
            "expected present, visible and confidence [N, L], "
            f"got {present.shape}, {visible.shape} and {confidence.shape}"
        )
    if not 0.0 <= min_confidence <= 1.0:
        raise ValueError(f"expected min_confidence in [0, 1], got {min_confidence}")
    usable = present & (visible | (confidence >= min_confidence))
    return usable if hidden is None else usable & ~np.asarray(hidden, bool)


def find_gaps(
    labels: Sequence[str],
    measurements: Sequence[Measurement],
    present: np.ndarray,
    visible: np.ndarray | None,
    confidence: np.ndarray,
    *,
    min_confidence: float,
    hidden: np.ndarray | None = None,
) -> list[list[str]]:
    """Why each measurement [N][M] is unreliable, in words; "" where it is reliable.

    The plane of an asymmetry is fitted to all landmarks: give `measure_faces` NaN for those that
    `find_usable`, with the same arguments, excludes.

    Args:
      labels: L names.
      measurements: M of them, as of `choose_measurements(labels)`.
      present, visible, confidence, min_confidence, hidden: as in `find_usable`.

    Raises:
      ValueError: as in `find_usable`, or the labels do not agree with the arrays or measurements.
    """
    usable = find_usable(present, visible, confidence, min_confidence=min_confidence, hidden=hidden)
    if usable.shape[1] != len(labels):
        raise ValueError(f"expected {len(labels)} landmarks, one a label, got {usable.shape}")
    _check_labels(measurements, labels)
    column = {label: i for i, label in enumerate(labels)}
    doubt = "uncertain" if visible is None else "not visible"

    def explain(n: int, label: str) -> str:
        i = column[label]
        if not present[n][i]:
            return f"{label} absent"
        if hidden is not None and hidden[n][i]:
            return f"{label} found not to be visible"
        sure = confidence[n][i]
        return f"{label} {doubt}, confidence " + (f"{sure:.2f}" if np.isfinite(sure) else "unknown")

    def explain_all(n: int, measurement: Measurement) -> str:
        reasons = [explain(n, one) for one in measurement.labels if not usable[n, column[one]]]
        if measurement.of_plane and not reasons:
            known = len(_plane_points({one for one in labels if usable[n, column[one]]}))
            if known < PLANE_POINTS:
                reasons = [f"midsagittal plane needs {PLANE_POINTS} points, got {known}"]
        return "; ".join(reasons)

    return [[explain_all(n, m) for m in measurements] for n in range(len(usable))]


def _check_labels(measurements: Sequence[Measurement], labels: Sequence[str]) -> None:
    for measurement in measurements:
        if not set(labels).issuperset(measurement.labels):
            raise ValueError(
                f"{measurement.key}: expected landmarks {', '.join(measurement.labels)}, "
                f"got {', '.join(labels)}"
            )


def _plane_points(labels: set[str]) -> list[tuple[str, str]]:
    """(left, right) of each pair that is whole; a midline point is its own partner."""
    every = [(label, label) for label in MIDLINE] + [_sides(stem) for stem in PAIRS]
    return [pair for pair in every if labels.issuperset(pair)]


def _sides(stem: str) -> tuple[str, str]:
    return stem + "L", stem + "R"


def _distance(at: FacePoints, a: str, b: str) -> np.ndarray:
    return np.linalg.norm(at[b] - at[a], axis=-1)


def _angle(at: FacePoints, a: str, vertex: str, b: str) -> np.ndarray:
    """Degrees in [0, 180]; NaN where an arm has no length."""
    u, v = at[a] - at[vertex], at[b] - at[vertex]
    across = np.linalg.norm(np.cross(u, v), axis=-1)  # arctan2 is exact near 0 and 180, arccos not
    along = np.sum(u * v, axis=-1)
    return np.where((across == 0) & (along == 0), np.nan, np.degrees(np.arctan2(across, along)))


def _canthal_index(at: FacePoints) -> np.ndarray:
    outer = _distance(at, "exL", "exR")
    return 100.0 * _distance(at, "enL", "enR") / np.where(outer > 0, outer, np.nan)


def _fit_midsagittal(at: FacePoints) -> tuple[np.ndarray, np.ndarray]:
    """A point [..., 3] and the unit normal [..., 3] of a face's plane of symmetry; NaN for none.

    The mirror plane that maps the landmarks onto their partners with the least sum of squares
    (Mardia, Bookstein & Moreton 2000, Biometrika 87:285). Let m be a midline point or the middle of
    a pair, relative to the centroid, h half the vector across the pair (0 in the midline) and w the
    number of landmarks, 1 or 2. The normal n minimises nᵀ Σ w (m mᵀ - h hᵀ) n: the plane lies near
    the middles and across the pairs. The middles alone lie within a few mm of one line: a plane
    fitted to them would be tilted twice as far by landmark errors.
    """
    pairs = _plane_points(set(at))
    left = np.stack([at[a] for a, _ in pairs], axis=-2)  # [..., P, 3]
    right = np.stack([at[b] for _, b in pairs], axis=-2)
    there = np.isfinite(left + right).all(axis=-1)  # [..., P]
    weight = np.where(there, [1.0 if a == b else 2.0 for a, b in pairs], 0.0)[..., None]
    middle = np.where(there[..., None], 0.5 * (left + right), 0.0)
    half = np.where(there[..., None], 0.5 * (right - left), 0.0)
    total = np.sum(weight, axis=-2)  # [..., 1]
    centre = np.sum(weight * middle, axis=-2) / np.maximum(total, 1.0)
    middle = middle - centre[..., None, :]
    spread = (
        np.swapaxes(weight * middle, -1, -2) @ middle - np.swapaxes(weight * half, -1, -2) @ half
    )  # [..., 3, 3]
    normal = np.linalg.eigh(spread)[1][..., 0]  # of the least eigenvalue
    known = np.sum(there, axis=-1)[..., None] >= PLANE_POINTS
    return np.where(known, centre, np.nan), np.where(known, normal, np.nan)


def _asymmetry(at: FacePoints, *stems: str) -> np.ndarray:
    """Distance from a pair's left point to the right one's mirror image; the mean over pairs."""
    plane = _fit_midsagittal(at)
    apart = [
        np.linalg.norm(at[stem + "L"] - _reflect(at[stem + "R"], *plane), axis=-1) for stem in stems
    ]
    return np.mean(apart, axis=0)


def _reflect(point: np.ndarray, centre: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The mirror image [..., 3] of a point at a plane."""
    return point - 2.0 * np.sum((point - centre) * normal, axis=-1, keepdims=True) * normal


def _join(labels: Sequence[str]) -> str:
    return "–".join(labels)


def _length(
    key: str,
    name: str,
    labels: str,
    curve: Callable[[Ages], Ages] | None = None,
    source: str = "",
) -> Measurement:
    a, b = labels.split()
    return Measurement(
        key, f"{name} {_join((a, b))}", "mm", (a, b), lambda at: _distance(at, a, b), curve, source
    )


def _corner(key: str, name: str, labels: str) -> Measurement:
    a, vertex, b = labels.split()
    return Measurement(
        key,
        f"{name} {_join((a, vertex, b))}",
        "°",
        (a, vertex, b),
        lambda at: _angle(at, a, vertex, b),
    )


def _imbalance(key: str, name: str, *stems: str) -> Measurement:
    labels = tuple(label for stem in stems for label in _sides(stem))
    return Measurement(key, name, "mm", labels, lambda at: _asymmetry(at, *stems), of_plane=True)


_RIMS = "a stand-in, measured at the orbits' rims: Sukonpan & Phupong 2008"
MEASUREMENTS = (
    _length(
        "inner_canthal", "inner canthal width", "enL enR",
        growth.interocular_mm, f"interocular diameter, {_RIMS}",
    ),
    _length(
        "outer_canthal", "outer canthal width", "exL exR",
        growth.binocular_mm, f"binocular diameter, {_RIMS}",
    ),
    _length("palpebral_fissure_left", "left palpebral fissure", "enL exL"),
    _length("palpebral_fissure_right", "right palpebral fissure", "enR exR"),
    Measurement(
        "canthal_index", "canthal index 100 · enL–enR / exL–exR", "%",
        ("enL", "enR", "exL", "exR"), _canthal_index,
    ),
    _length("nasal_width", "nasal width", "alL alR"),
    _length("alar_base", "alar base width", "acL acR"),
    _length("nose_height", "nose height", "n sn"),
    _length("nasal_bridge", "nasal bridge length", "n prn"),
    _length("nasal_protrusion", "nasal protrusion", "sn prn"),
    _length(
        "philtrum_length", "philtrum length", "sn ls",
        growth.philtrum_mm, "philtrum length: Gull 2005",
    ),
    _length("philtrum_width", "philtrum width", "cphL cphR"),
    _length("mouth_width", "mouth width", "chL chR"),
    _length("vermilion_height", "vermilion height", "ls li"),
    _length("lower_face_height", "lower face height", "sn pg"),
    _length("nasion_pogonion", "face height to the pogonion", "n pg"),
    _corner("nasal_tip_angle", "nasal tip angle", "n prn sn"),
    _corner("nasolabial_angle", "angle near the nasolabial", "prn sn ls"),
    _corner("labiomental_angle", "labiomental angle", "li sl pg"),
    _corner("facial_convexity", "facial convexity", "n sn pg"),
    _corner("subnasale_nasion_pogonion", "angle of the jaws at the nasion", "sn n pg"),
    *(
        _imbalance(
            f"asymmetry_{stem}",
            f"asymmetry, {NAMES[stem + 'L'].removeprefix('left ')} {_join(_sides(stem))}",
            stem,
        )
        for stem in PAIRS
    ),
    _imbalance("asymmetry", f"asymmetry, mean of {len(PAIRS)} pairs", *PAIRS),
)  # fmt: skip
