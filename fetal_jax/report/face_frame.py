"""Where a face is in a volume: the level between fluid and tissue, and which way the face looks.

Any frame whose axes run to the Right, Anterior and Superior will do: mm, or voxels of a grid.
"""

import math
from collections.abc import Sequence

import numpy as np

ANTERIOR, SUPERIOR = np.eye(3)[1], np.eye(3)[2]
FLAT = 0.65  # thickness of a set of landmarks, as a share of its width, up to which it faces a way
BULGE = 0.3  # correlation of height and distance from the middle from which its front is known


def score_thresholds(counts: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How well each threshold parts a histogram in two: the variance between the parts.

    The best one is Otsu's (1979, IEEE Trans. Syst. Man Cybern. 9:62); between two separate peaks
    all are equally good.

    Args:
      counts: [K] of the values at each level.
      levels: [K], ascending.

    Returns:
      [K]: the score if levels up to this one, and it too, are below the threshold.
    """
    below, sums = np.cumsum(counts), np.cumsum(counts * np.asarray(levels, np.float64))
    total = below[-1]
    gap = (sums[-1] * below / total - sums) ** 2
    return gap / np.maximum(below * (total - below), 1)


def find_axes(
    labels: Sequence[str],
    points: np.ndarray,
    *,
    pairs: Sequence[str] | None = None,
    least_sine: float = 0.0,
) -> np.ndarray | None:
    """[3, 3], rows right, up and front of a face whose landmarks have known names.

    Up runs from pogonion to nasion, pg to n; right from xL to xR, the mean over pairs; front is
    where the nose points, at right angles to both.

    Args:
      labels: L names.
      points: [L, 3], NaN where absent.
      pairs: the names x, each of which must be there; None for all that are.
      least_sine: of the angle between up and right: with less there are no axes.

    Returns:
      The axes, unit vectors, or None where a name or a position is missing or all lie on a line.
    """
    at = _keep_known(labels, points)
    right = _sum_pairs(at, pairs)
    if right is None or "n" not in at or "pg" not in at:
        return None
    up = at["n"] - at["pg"]
    front = np.cross(up, right)  # Superior x Right is Anterior
    length = np.linalg.norm(front)
    if not length > least_sine * np.linalg.norm(up) * np.linalg.norm(right):
        return None
    up, front = _scale(up), front / length
    return np.stack([np.cross(front, up), up, front])


def guess_axes(points: np.ndarray, labels: Sequence[str] = ()) -> np.ndarray:
    """[3, 3], rows right, up and front of any set of landmarks; of a face as `find_axes`.

    Else the front is the normal of the landmarks' best plane, on the side to which their middle
    bulges; Anterior if they have no such plane, or no such side. Up is as pairs xL and xR have it,
    or else Superior as far as the front allows.

    Args:
      points: [L, 3], NaN where absent.
      labels: L names, or none.
    """
    points = np.asarray(points, np.float64)
    axes = find_axes(labels, points, least_sine=0.5) if len(labels) else None
    if axes is not None:
        return axes
    front = _find_front(points[np.isfinite(points).all(axis=-1)])
    right = _sum_pairs(_keep_known(labels, points)) if len(labels) else None
    if right is not None:
        across = right - (right @ front) * front
        if np.linalg.norm(across) > 0.5 * np.linalg.norm(right):
            up = _scale(np.cross(across, front))  # Right x Anterior is Superior
            return np.stack([np.cross(front, up), up, front])
    # of a face that looks up to Superior the top of the head is Posterior
    hint = SUPERIOR if abs(front @ SUPERIOR) < 0.9 else -np.sign(front @ SUPERIOR) * ANTERIOR
    up = _scale(hint - (hint @ front) * front)
    return np.stack([np.cross(front, up), up, front])


def _keep_known(labels: Sequence[str], points: np.ndarray) -> dict[str, np.ndarray]:
    """label -> position [3] of those that have one."""
    named = zip(labels, np.asarray(points, np.float64), strict=True)
    return {label: point for label, point in named if np.isfinite(point).all()}


def _sum_pairs(at: dict[str, np.ndarray], pairs: Sequence[str] | None = None) -> np.ndarray | None:
    """The sum of the ways from xL to xR; None where a pair, or every pair, is missing."""
    there = [k[:-1] for k in at if k[-1:] == "R" and f"{k[:-1]}L" in at]
    pairs = there if pairs is None else pairs
    if not pairs or set(pairs) - set(there):
        return None
    return sum((at[f"{k}R"] - at[f"{k}L"] for k in pairs), np.zeros(3))


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


def _scale(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
