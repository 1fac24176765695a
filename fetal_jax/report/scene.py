"""What `viewer.js` shows of a case: the volume in bytes, landmarks, and how to look at the face."""

import base64
import json
import math

import numpy as np
from scipy import ndimage

ANTERIOR, SUPERIOR = np.eye(3)[1], np.eye(3)[2]
LARGEST_SIDE = 96  # 1.2 MB of base64
# The viewer smooths what is coarser as it draws; a finer grid is as noisy as the scan.
COARSE_SIDE, FINE_SMOOTH_VOX = 64, 1.2
FLAT = 0.65  # thickness of a set of landmarks, as a share of its width, up to which it faces a way
BULGE = 0.3  # correlation of height and distance from the middle from which its front is known


def make_scene(
    title: str,
    volume: np.ndarray,
    spacing_mm: float,
    labels: list[str],
    *,
    truth_vox: np.ndarray | None = None,
    found_vox: np.ndarray | None = None,
    present: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    smooth_vox: float | None = None,
) -> dict:
    """One entry of the page's `scenes`, ready for JSON.

    Args:
      title: of the view.
      volume: [D, H, W] in [0, 1], axes running to the child's Right, Anterior, Superior.
      spacing_mm: of its voxels.
      labels: L names.
      truth_vox, found_vox: [L, 3] voxels of the volume, NaN where absent; None for none.
      present: [L] bool, which of the truth are there, if those absent are not NaN.
      visible: [L] bool, all if None.
      confidence: [L] in [0, 1], NaN where unknown.
      smooth_vox: sd of the smoothing, in voxels of what is shown; None: by the volume's size.
    """
    n = len(labels)
    volume = np.asarray(volume, np.float32)
    truth = _take_points(truth_vox, n)
    found = _take_points(found_vox, n)
    if volume.ndim != 3:
        raise ValueError(f"expected a volume [D, H, W], got {volume.shape}")
    if present is not None:
        truth[~np.asarray(present, bool)] = np.nan
    volume, factor = shrink_volume(volume, LARGEST_SIDE)
    # a block's centre lies between its voxels
    truth, found = ((points - (factor - 1) / 2) / factor for points in (truth, found))
    spacing_mm = float(spacing_mm) * factor
    if smooth_vox is None:
        smooth_vox = 0.0 if max(volume.shape) <= COARSE_SIDE else FINE_SMOOTH_VOX
    volume = ndimage.gaussian_filter(volume, smooth_vox)
    anchors = np.where(np.isfinite(truth), truth, found)
    front, up = face_axes(anchors, labels)
    return {
        "title": title,
        "shape": list(volume.shape),
        "spacing_mm": spacing_mm,
        "volume": base64.b64encode(_to_bytes(volume).tobytes()).decode(),
        "threshold": choose_threshold(volume, anchors),
        "labels": list(labels),
        "truth": _list_points(truth),
        "found": _list_points(found),
        "visible": [bool(v) for v in (np.ones(n, bool) if visible is None else visible)],
        "error_mm": _list_numbers(np.linalg.norm(found - truth, axis=-1) * spacing_mm),
        "confidence": _list_numbers(np.full(n, np.nan) if confidence is None else confidence),
        "front": [round(float(x), 4) for x in front],
        "up": [round(float(x), 4) for x in up],
    }


def embed_scenes(scenes: list[dict]) -> str:
    """The element that `viewer.js` reads; no title can end it early."""
    text = json.dumps(scenes, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="scenes">{text}</script>'


def choose_threshold(volume: np.ndarray, points_vox: np.ndarray | None = None) -> int:
    """Otsu's threshold between fluid and tissue, 4 to 250 of 255, of a volume in [0, 1].

    With landmarks [L, 3] only what lies near to one counts, within a sixth of what they span: a
    wall or a skull that is brighter than skin would draw the threshold off.
    """
    values = np.asarray(volume, np.float32)
    points = _keep_finite(points_vox)
    if len(points):
        far = np.ones(values.shape, bool)
        inside = np.clip(np.rint(points).astype(int), 0, np.array(values.shape) - 1)
        far[tuple(inside.T)] = False
        radius_vox = max(3.0, np.ptp(points, axis=0).max() / 6)
        values = values[ndimage.distance_transform_edt(far) <= radius_vox]
    count = np.bincount(_to_bytes(values).ravel(), minlength=256).astype(np.float64)
    below, sum_below = np.cumsum(count), np.cumsum(count * np.arange(256))
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    gap = sum_above / np.maximum(above, 1) - sum_below / np.maximum(below, 1)
    score = below * above * gap**2
    best = np.flatnonzero(score >= score.max() * (1 - 1e-9))  # all of the gap between two peaks
    return int(np.clip(best.mean(), 4, 250))


def face_axes(points_vox: np.ndarray, labels: list[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (front, up) in (d, h, w): out of the face, and to the top of the head.

    By name where there are pairs (xL and xR) and the nasion and pogonion, n and pg. Else the front
    is the normal of the landmarks' best plane, on the side to which their middle bulges; Anterior
    if they have no such plane, or no such side. Superior is up as far as the front allows.

    Args:
      points_vox: [L, 3], NaN where absent.
      labels: L names, or none.
    """
    points = np.asarray(points_vox, np.float64)
    named = {k: p for k, p in zip(labels, points, strict=False) if np.isfinite(p).all()}
    pairs = [k[:-1] for k in named if k[-1:] == "R" and f"{k[:-1]}L" in named]
    right = sum((named[f"{k}R"] - named[f"{k}L"] for k in pairs), np.zeros(3))
    if pairs and "n" in named and "pg" in named:
        up = named["n"] - named["pg"]
        front = np.cross(up, right)  # Superior x Right is Anterior
        if np.linalg.norm(front) > 0.5 * np.linalg.norm(up) * np.linalg.norm(right) > 0:
            front = _unit(front)
            return front, _unit(up - (up @ front) * front)
    front = _find_front(_keep_finite(points))
    across = right - (right @ front) * front
    if np.linalg.norm(across) > 0.5 * np.linalg.norm(right):
        return front, _unit(np.cross(across, front))  # Right x Anterior is Superior
    # of a face that looks up to Superior the top of the head is Posterior
    hint = SUPERIOR if abs(front @ SUPERIOR) < 0.9 else -np.sign(front @ SUPERIOR) * ANTERIOR
    return front, _unit(hint - (hint @ front) * front)


def _find_front(points: np.ndarray) -> np.ndarray:
    """The way that landmarks [N, 3] face, Anterior where they do not show it."""
    if len(points) < 5:
        return ANTERIOR
    centred = points - points.mean(axis=0)
    _, widths, ways = np.linalg.svd(centred, full_matrices=False)
    height = centred @ ways[2]
    beside = np.linalg.norm(centred @ ways[:2].T, axis=1)
    if widths[2] > FLAT * widths[1] or min(height.std(), beside.std()) < 1e-6:
        return ANTERIOR
    bulge = np.corrcoef(height, beside)[0, 1]
    return ANTERIOR if abs(bulge) < BULGE else -math.copysign(1.0, bulge) * ways[2]


def shrink_volume(volume: np.ndarray, largest: int) -> tuple[np.ndarray, int]:
    """Means over blocks, so that no side is longer than `largest`; and the blocks' side."""
    factor = max(1, math.ceil(max(volume.shape) / largest))
    if factor == 1:
        return volume, 1
    room = [(0, -n % factor) for n in volume.shape]
    padded = np.pad(volume, room, mode="edge")
    d, h, w = (n // factor for n in padded.shape)
    blocks = padded.reshape(d, factor, h, factor, w, factor)
    return blocks.mean(axis=(1, 3, 5)), factor  # [d, h, w]


def _take_points(points, n: int) -> np.ndarray:
    if points is None:
        return np.full((n, 3), np.nan)
    points = np.array(points, np.float64)
    if points.shape != (n, 3):
        raise ValueError(f"expected points [{n}, 3], one a label, got {points.shape}")
    return points


def _keep_finite(points) -> np.ndarray:
    points = np.zeros((0, 3)) if points is None else np.asarray(points, np.float64)
    return points[np.isfinite(points).all(axis=-1)]


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _list_points(points: np.ndarray) -> list:
    return [p.round(2).tolist() if np.isfinite(p).all() else None for p in points]


def _list_numbers(values) -> list:
    return [round(float(v), 3) if np.isfinite(v) else None for v in values]
