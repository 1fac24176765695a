"""Is each landmark where the others, and other readers of the scan, say that it should be?

A point is compared with its mean given all others, by a shape that was learned robustly from other
subjects, in multiples of what is usual for its landmark. What another reader of the same scan set
nearby, too, is anatomy and no slip.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from fetal_jax import frames, shape_model
from fetal_jax.frames import MIRROR
from fetal_jax.shape_model import ShapeModel

FIRST_LIMIT = 3.0  # of the first pass: what is left out too much comes back in the next
LIMIT = 5.0  # times what is usual: further away is doubtful
UNLIKE = 0.4  # of a reading's points that are doubtful: then it is the file
EXCHANGED = 0.25  # of the squared distances, what an exchange may leave
LEAST_READINGS = 8  # fewer say nothing of what is usual
LEAST_LANDMARKS = 5  # of a reading; with four, it could be any of them
FOLDS, PASSES, REWEIGHTINGS = 5, 3, 5
POSE_MM = 100.0  # sd of the pose, large beside a shape's modes
TOLERANCE = 0.25  # of the shape's root mean square radius, in the first, robust fit of the pose
FLOOR = 0.5  # of the median over landmarks: none is held to less
LEAST_SD = 0.002  # of a shape's radius: faces that are one shape leave digits alone
MEDIAN_RADIUS = 1.538  # of a normal point in space, in its sd along each axis


class Usual(NamedTuple):
    """What is usual, in mm of the face's frame.

    shape: how faces vary; sd_mm: [L] along each axis, how far a landmark lies from where the others
    expect it; hidden: so many times further where it was set without being seen.
    """

    shape: ShapeModel
    sd_mm: np.ndarray
    hidden: float = 1.0


class Deviations(NamedTuple):
    """How N readings lie to what is expected of them; NaN where nothing can be said.

    expected_mm: [N, L, 3], each landmark's mean given the others.
    sd_mm: [N, L], what is usual in the reading's own millimetres.
    times: [N, L], the distance in multiples of it.
    """

    expected_mm: np.ndarray
    sd_mm: np.ndarray
    times: np.ndarray


class Doubt(NamedTuple):
    """What looks wrong with a reading.

    kind: "slip", of one landmark; "exchanged", of two; "readers", one that other readers set
      elsewhere; "mirrored" or "unlike", of the whole reading.
    landmarks: their indices; none of a whole reading.
    away_mm: of the first from where it is expected, of "readers" from the nearest other reader's,
      of a whole reading the median.
    exchanged_mm: the same after the exchange, or of the mirror image; else NaN.
    times: `away_mm` in multiples of what is usual.
    """

    kind: str
    landmarks: tuple[int, ...]
    away_mm: float
    exchanged_mm: float
    times: float


def cross_check(
    points_mm: np.ndarray,
    subjects: Sequence[str],
    mirror_index: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> tuple[Usual, Deviations]:
    """What is usual among readings, and how each lies to the others'.

    A reading is compared with a shape of other subjects alone, in folds. What is doubtful is left
    out of the next pass, so that errors do not hide themselves.

    Args:
      points_mm: [N, L, 3] RAS+, NaN where absent.
      subjects: N.
      mirror_index: of `shape_model.fit_shape_model`.
      seen: [N, L] bool, the points that can be seen; None: all.

    Raises:
      ValueError: too few readings of too few subjects, or those of `frames.fit_mean_shape`.
    """
    known = np.isfinite(points_mm).all(axis=-1)
    posed = known.sum(axis=1) >= LEAST_LANDMARKS
    names = sorted({one for one, there in zip(subjects, posed, strict=True) if there})
    if posed.sum() < LEAST_READINGS or len(names) < FOLDS:
        raise ValueError(
            f"expected {LEAST_READINGS} readings with {LEAST_LANDMARKS} landmarks or more, of "
            f"{FOLDS} subjects, got {int(posed.sum())} of {len(names)}"
        )
    fold_of = {name: i % FOLDS for i, name in enumerate(names)}
    fold = np.array([fold_of.get(one, 0) for one in subjects])
    hidden = known & ~seen if seen is not None else np.zeros_like(known)
    usual, clean = None, points_mm
    for number in range(PASSES):
        mean_mm, shapes_mm = frames.fit_mean_shape(clean, mirror_index)
        poses = _fit_poses(mean_mm, points_mm, known.astype(np.float64))
        distances, expected_mm = np.full(known.shape, np.nan), np.full(points_mm.shape, np.nan)
        for part in range(FOLDS):
            # in the first pass without modes: errors of one kind would make one of their own
            shape = _fit_shape(mean_mm, shapes_mm[fold != part], mirror_index, number > 0)
            scale = usual or Usual(shape, np.full(len(mean_mm), 2 * shape.noise_mm))
            own = fold == part
            found = _measure(
                scale._replace(shape=shape),
                points_mm[own],
                known[own],
                hidden[own],
                poses.select(own),
            )
            expected_mm[own] = found.expected_mm
            distances[own] = found.times * found.sd_mm / poses.scale[own, None]
        seen_ones = np.where(hidden, np.nan, distances)
        # where none is said to be seen, all are alike
        sd_mm = _measure_usual(seen_ones if np.isfinite(seen_ones).any() else distances)
        sd_mm = np.maximum(sd_mm, LEAST_SD * _measure_radius(mean_mm))
        usual = Usual(
            shape, sd_mm, _measure_hidden(distances[hidden] / sd_mm[np.nonzero(hidden)[1]])
        )
        usual_mm = np.where(hidden, usual.hidden, 1.0) * sd_mm
        limit = LIMIT if number else FIRST_LIMIT
        clean = np.where((distances > limit * usual_mm)[..., None], np.nan, points_mm)
    usual = usual._replace(shape=_fit_shape(mean_mm, shapes_mm, mirror_index))
    return usual, Deviations(expected_mm, poses.scale[:, None] * usual_mm, distances / usual_mm)


def measure_deviations(
    usual: Usual, points_mm: np.ndarray, weights: np.ndarray, hidden: np.ndarray | None = None
) -> Deviations:
    """How new readings lie to what is usual.

    Args:
      points_mm: [N, L, 3] RAS+, NaN where absent.
      weights: [N, L], 0 to 1, how sure each point is.
      hidden: [N, L] bool, the points that cannot be seen; None: none.
    """
    poses = _fit_poses(usual.shape.mean_mm, points_mm, weights)
    hidden = np.zeros(weights.shape, bool) if hidden is None else hidden
    return _measure(usual, points_mm, weights, hidden, poses)


def widen_usual(usual: Usual, deviations: Deviations) -> Usual:
    """What is usual among readings that lie so to `usual`: so many times further in the median.

    One number for all landmarks: one that is mostly wrong is not to be held to less. It is never
    less than it was, and with fewer than LEAST_READINGS readings nothing is changed.
    """
    times = deviations.times[np.isfinite(deviations.times).any(axis=1)]
    if len(times) < LEAST_READINGS:
        return usual
    factor = max(1.0, float(np.nanmedian(times)) / MEDIAN_RADIUS)
    return usual._replace(sd_mm=usual.sd_mm * factor)


class _Poses(NamedTuple):
    """N similarities from mm of the frame onto readings: scale [N], rotation [N, 3, 3], shift
    [N, 3].
    """

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray

    def select(self, which: np.ndarray) -> "_Poses":
        return _Poses(*(each[which] for each in self))

    def carry(self, points_mm: np.ndarray) -> np.ndarray:
        turned = np.einsum("nij,nlj->nli", self.rotation, points_mm)
        return self.scale[:, None, None] * turned + self.shift[:, None]

    def carry_back(self, points_mm: np.ndarray) -> np.ndarray:
        near = (points_mm - self.shift[:, None]) / self.scale[:, None, None]
        return np.einsum("nji,nlj->nli", self.rotation, near)


@cache
def _fit_robustly() -> Callable:
    return jax.jit(frames.fit_frame)


def _fit_poses(mean_mm: np.ndarray, points_mm: np.ndarray, weights: np.ndarray) -> _Poses:
    known = np.isfinite(points_mm).all(axis=-1)
    nothing = ~known.any(axis=1)
    points_mm = np.where(nothing[:, None, None], mean_mm, points_mm)
    middles = np.nanmedian(points_mm, axis=1)  # about them float32 has digits to spare
    near = np.nan_to_num(points_mm - middles[:, None])
    sure = np.where(known, weights, nothing[:, None])
    tolerance_mm = TOLERANCE * _measure_radius(mean_mm)
    shape, tolerance_mm = (np.asarray(a, np.float32) for a in (mean_mm, tolerance_mm))
    fits = [  # one by one: a program for any number of readings
        _fit_robustly()(shape, points, each, tolerance_mm=tolerance_mm).similarity
        for points, each in zip(near.astype(np.float32), sure.astype(np.float32), strict=True)
    ]
    fits = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float64), *fits)
    return _Poses(fits.scale, fits.rotation, fits.shift + middles)


def _fit_shape(mean_mm, shapes_mm, mirror_index, with_modes=True) -> ShapeModel:
    """Of cases in a frame that others share: their own mean, where they have one."""
    both = shapes_mm
    if mirror_index is not None:
        both = np.concatenate([shapes_mm, shapes_mm[:, mirror_index] * MIRROR])
    known = np.isfinite(both).all(axis=-1, keepdims=True)
    sums = np.where(known, both, 0.0).sum(axis=0)
    own = np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), mean_mm)
    if with_modes:
        shape = shape_model.fit_shape_model(own, shapes_mm, mirror_index)
    else:
        away = np.linalg.norm(shapes_mm - own, axis=-1)
        noise_mm = float(np.nanmedian(away)) / MEDIAN_RADIUS
        shape = ShapeModel(own, np.zeros((0, *own.shape)), noise_mm)
    return shape._replace(noise_mm=max(shape.noise_mm, LEAST_SD * _measure_radius(mean_mm)))


def _measure_radius(mean_mm: np.ndarray) -> float:
    """Root mean square, mm."""
    return float(np.sqrt(np.square(mean_mm).sum(axis=-1).mean()))


def _measure_usual(distances: np.ndarray) -> np.ndarray:
    """[L], of N distances from a mean in space the sd along each axis, by their median.

    A landmark that few have gets that of all.
    """
    each = [column[np.isfinite(column)] for column in distances.T]
    every = np.median(np.concatenate(each))
    medians = np.array([np.median(d) if len(d) >= LEAST_READINGS else every for d in each])
    return np.maximum(medians, FLOOR * np.median(medians)) / MEDIAN_RADIUS


def _measure_hidden(times: np.ndarray) -> float:
    times = times[np.isfinite(times)]
    return (
        max(1.0, float(np.median(times)) / MEDIAN_RADIUS) if len(times) >= LEAST_READINGS else 1.0
    )


def _measure(usual: Usual, points_mm, weights, hidden, poses: _Poses) -> Deviations:
    known = np.isfinite(points_mm).all(axis=-1)
    known &= known.sum(axis=1, keepdims=True) >= LEAST_LANDMARKS
    further = np.where(hidden, usual.hidden, 1.0)
    sd_mm, weights = usual.sd_mm * further, np.where(known, weights, 0.0) / np.square(further)
    away = np.where(known[..., None], poses.carry_back(points_mm) - usual.shape.mean_mm, 0.0)
    # until each is compared with the others, how far from the mean shape must do
    spread = np.sqrt(np.square(usual.shape.modes_mm).sum(axis=0).mean() + usual.shape.noise_mm**2)
    trust = weights / np.square(1.0 + np.square(np.linalg.norm(away, axis=-1) / (LIMIT * spread)))
    for _ in range(REWEIGHTINGS):
        gaps = _compare_with_others(usual.shape, away, trust)
        times = np.linalg.norm(gaps, axis=-1) / sd_mm
        trust = weights / np.square(1.0 + np.square(times / LIMIT))
    expected_mm = poses.carry(usual.shape.mean_mm + away - gaps)
    enough = known.any(axis=1)
    return Deviations(
        np.where(enough[:, None, None], expected_mm, np.nan),
        poses.scale[:, None] * sd_mm,
        np.where(known, times, np.nan),
    )


def _compare_with_others(shape: ShapeModel, away: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """[N, L, 3], each point less its mean given the others, whose distribution is normal.

    The pose is as unknown as the shape is: shifts, small turns and a change of size are modes, too.
    With P the inverse of the covariance and P_ll a landmark's block of it, the difference is
    inv(P_ll) (P x)_l (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 5.12).

    Args:
      away: [N, L, 3] mm of the frame from the mean shape.
      trust: [N, L], 0 of points that say nothing, which may be anywhere.
    """
    n, count, _ = away.shape
    modes = np.concatenate([shape.modes_mm, POSE_MM * _list_poses(shape.mean_mm)])
    flat = modes.reshape(len(modes), 3 * count)
    variances = shape.noise_mm**2 / np.repeat(np.maximum(trust, 1e-6), 3, axis=1)
    inverse = np.linalg.inv((flat.T @ flat)[None] + variances[:, None] * np.eye(3 * count))
    pulls = np.einsum("nij,nj->ni", inverse, away.reshape(n, -1)).reshape(n, count, 3)
    blocks = inverse.reshape(n, count, 3, count, 3)
    own = blocks[:, np.arange(count), :, np.arange(count)].swapaxes(0, 1)
    return np.linalg.solve(own, pulls[..., None])[..., 0]


def _list_poses(mean_mm: np.ndarray) -> np.ndarray:
    """[7, L, 3]: shifts, small turns and a change of size, each of rms 1."""
    shifts = [np.broadcast_to(axis, mean_mm.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, mean_mm) for axis in np.eye(3)]
    modes = np.stack([*shifts, *turns, mean_mm])
    return modes / np.sqrt(np.mean(np.square(modes), axis=(1, 2), keepdims=True))


def measure_nearest(points_mm: np.ndarray, scans: Sequence[str]) -> np.ndarray:
    """[N, L] mm from each point to the nearest that another reader of the same scan set.

    NaN where no other did.

    Args:
      points_mm: [N, L, 3], NaN where absent.
      scans: N, which scan each reading is of.
    """
    nearest = np.full(points_mm.shape[:2], np.nan)
    for scan in set(scans):
        own = [i for i, one in enumerate(scans) if one == scan]
        apart = np.linalg.norm(points_mm[own][:, None] - points_mm[own][None], axis=-1)
        apart[np.arange(len(own)), np.arange(len(own))] = np.nan
        least = np.where(np.isnan(apart), np.inf, apart).min(axis=1)
        nearest[own] = np.where(np.isfinite(least), least, np.nan)
    return nearest


def find_doubts(
    usual: Usual,
    deviations: Deviations,
    points_mm: np.ndarray,
    scans: Sequence[str] | None = None,
) -> list[list[Doubt]]:
    """What looks wrong with each of N readings, the worst first.

    Args:
      points_mm: [N, L, 3] RAS+, NaN where absent.
      scans: which scan each reading is of, where there are several readers.
    """
    wrong = deviations.times > LIMIT  # NaN is not
    nearest = np.full(wrong.shape, np.nan) if scans is None else measure_nearest(points_mm, scans)
    between = np.full(wrong.shape, np.nan)
    if np.isfinite(nearest).any():
        between = nearest / (_measure_usual(nearest) * MEDIAN_RADIUS)
    confirmed = between <= LIMIT
    apart = (between > LIMIT) & ~_is_confirmed_by_shape(deviations.times, scans, between)
    every = []
    for i, reading in enumerate(points_mm):
        one = Deviations(*(each[i] for each in deviations))
        whole = _judge_whole(usual, one, reading)
        if whole and not (confirmed[i] & wrong[i]).any():
            every.append([whole])
            continue
        doubts = _find_exchanges(reading, one, wrong[i] & ~confirmed[i])
        named = {landmark for doubt in doubts for landmark in doubt.landmarks}
        for k in np.flatnonzero((wrong[i] & ~confirmed[i]) | apart[i]):
            if k in named:
                continue
            if apart[i, k] and not one.times[k] > LIMIT:
                doubts.append(Doubt("readers", (int(k),), nearest[i, k], np.nan, between[i, k]))
            else:
                away = float(np.linalg.norm(reading[k] - one.expected_mm[k]))
                doubts.append(Doubt("slip", (int(k),), away, np.nan, float(one.times[k])))
        every.append(sorted(doubts, key=lambda doubt: -doubt.times))
    return every


def _is_confirmed_by_shape(times, scans, between) -> np.ndarray:
    """[N, L]: of two readers that are apart, the one that lies better in the shape."""
    better = np.zeros(times.shape, bool)
    for scan in set(scans or ()):
        own = np.array([i for i, one in enumerate(scans) if one == scan])
        for k in np.flatnonzero((between[own] > LIMIT).any(axis=0)):
            there = own[np.isfinite(between[own, k])]
            if len(there) == 2 and np.isfinite(times[there, k]).all():
                first, second = sorted(there, key=lambda i: times[i, k])
                better[first, k] = times[first, k] < 0.5 * times[second, k]
    return better


def _judge_whole(usual: Usual, one: Deviations, reading: np.ndarray) -> Doubt | None:
    """A doubt about a reading as a whole, of which too much is wrong."""
    judged = np.isfinite(one.times)
    if not judged.any() or np.mean(one.times[judged] > LIMIT) < UNLIKE:
        return None
    known = np.isfinite(reading).all(axis=-1)
    image = measure_deviations(usual, (reading * MIRROR)[None], known[None] * 1.0)
    (times, away_mm), (flipped, flipped_mm) = (
        (float(np.nanmedian(each.times)), float(np.nanmedian(each.times * each.sd_mm)))
        for each in (one, image)
    )
    if np.mean(image.times[0, judged] > LIMIT) < UNLIKE and flipped < times / 2:
        return Doubt("mirrored", (), away_mm, flipped_mm, times)
    return Doubt("unlike", (), away_mm, np.nan, times)


def _find_exchanges(reading: np.ndarray, one: Deviations, wrong: np.ndarray) -> list[Doubt]:
    """Pairs of landmarks, one of them wrong, that are both right when exchanged; each once."""
    there = np.isfinite(reading).all(axis=-1)
    # [a, b]: how far the point of b is from where a is expected
    apart = np.linalg.norm(reading[None] - one.expected_mm[:, None], axis=-1) / one.sd_mm[:, None]
    own = np.diagonal(apart)
    after = np.square(apart) + np.square(apart.T)
    before = np.square(own)[:, None] + np.square(own)[None]
    fits = (np.maximum(apart, apart.T) <= LIMIT) & (after < EXCHANGED * before)
    fits &= wrong[:, None] & there[None] & ~np.eye(len(own), dtype=bool)
    doubts: list[Doubt] = []
    pairs = sorted(zip(*np.nonzero(fits), strict=True), key=lambda pair: after[pair])
    taken: set[int] = set()
    for a, b in pairs:
        if taken.isdisjoint((a, b)):
            taken |= {a, b}
            first, second = sorted((int(a), int(b)), key=lambda k: -own[k])
            mm = one.sd_mm[first]
            doubts.append(
                Doubt(
                    "exchanged",
                    (first, second),
                    float(own[first] * mm),
                    float(apart[first, second] * mm),
                    float(own[first]),
                )
            )
    return doubts


def describe_doubt(doubt: Doubt, labels: Sequence[str]) -> str:
    """In words, for a person."""
    named = " and ".join(labels[k] for k in doubt.landmarks)
    away, times = f"{doubt.away_mm:.1f} mm", f"{doubt.times:.0f} times what is usual"
    if doubt.kind == "mirrored":
        return (
            f"the whole file looks mirrored, or left and right exchanged: {away} from a face in "
            f"the median, its mirror image {doubt.exchanged_mm:.1f} mm"
        )
    if doubt.kind == "unlike":
        return f"the points do not lie as those of the other cases: {away} away in the median"
    if doubt.kind == "exchanged":
        first = labels[doubt.landmarks[0]]
        return (
            f"{named} look exchanged: {first} is {away} from where the others expect it, "
            f"{doubt.exchanged_mm:.1f} mm after the exchange"
        )
    if doubt.kind == "readers":
        return f"{named} is {away} from the nearest that another reader set, {times}"
    return f"{named} is {away} from where the other landmarks expect it, {times}"
