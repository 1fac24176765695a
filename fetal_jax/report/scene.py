"""What `viewer.js` shows of a case: the volume in bytes, landmarks, and how to look at the face.

A scene is one entry of the list that the page hands to it.
"""

import base64
import json
import math

import numpy as np
from scipy import ndimage

from fetal_jax.report.face_frame import guess_axes, score_thresholds

LARGEST_SIDE = 96  # 1.2 MB of base64
# The viewer smooths what is coarser as it draws; a finer grid is as noisy as the scan.
COARSE_SIDE, FINE_SMOOTH_VOX = 64, 1.2


def make_viewer_scene(
    title: str,
    volume: np.ndarray,
    spacing_mm: float,
    labels: list[str],
    *,
    truth_vox: np.ndarray | None = None,
    predicted_vox: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
) -> dict:
    """One scene, ready for JSON.

    Args:
      title: of the view.
      volume: [D, H, W] in [0, 1], axes running to the child's Right, Anterior, Superior.
      spacing_mm: of its voxels.
      labels: L names.
      truth_vox, predicted_vox: [L, 3] voxels of the volume, NaN where absent; None for none.
      visible: [L] bool, all if None.
      confidence: [L] in [0, 1], NaN where unknown.

    Raises:
      ValueError: the volume has no three axes, or the points are not one a label.
    """
    n = len(labels)
    volume = np.asarray(volume, np.float32)
    truth = _take_points(truth_vox, n)
    predicted = _take_points(predicted_vox, n)
    if volume.ndim != 3:
        raise ValueError(f"expected a volume [D, H, W], got {volume.shape}")
    volume, factor = shrink_volume(volume, LARGEST_SIDE)
    # a block's centre lies between its voxels
    truth, predicted = ((points - (factor - 1) / 2) / factor for points in (truth, predicted))
    spacing_mm = float(spacing_mm) * factor
    if max(volume.shape) > COARSE_SIDE:
        volume = ndimage.gaussian_filter(volume, FINE_SMOOTH_VOX)
    anchors = np.where(np.isfinite(truth), truth, predicted)
    _, up, front = guess_axes(anchors, labels)
    return {
        "title": title,
        "shape": list(volume.shape),
        "spacing_mm": spacing_mm,
        "volume": base64.b64encode(_to_bytes(volume).tobytes()).decode(),
        "threshold": choose_threshold(volume, anchors),
        "labels": list(labels),
        "truth": _list_points(truth),
        "predicted": _list_points(predicted),
        "visible": [bool(v) for v in (np.ones(n, bool) if visible is None else visible)],
        "error_mm": _list_numbers(np.linalg.norm(predicted - truth, axis=-1) * spacing_mm),
        "confidence": _list_numbers(np.full(n, np.nan) if confidence is None else confidence),
        "front": [round(float(x), 4) for x in front],
        "up": [round(float(x), 4) for x in up],
    }


def embed_viewer_scenes(scenes: list[dict]) -> str:
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
    score = score_thresholds(np.bincount(_to_bytes(values).ravel(), minlength=256), np.arange(256))
    best = np.flatnonzero(score >= score.max() * (1 - 1e-9))  # all of the gap between two peaks
    return int(np.clip(best.mean(), 4, 250))


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


def _list_points(points: np.ndarray) -> list:
    return [p.round(2).tolist() if np.isfinite(p).all() else None for p in points]


def _list_numbers(values) -> list:
    return [round(float(v), 3) if np.isfinite(v) else None for v in values]
