"""Looks of the second network: in the frame that found points give, and again from what it found.

Where the first network looks from all sides, the second one also says which of them is right.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from fetal_jax import frames, shape_model
from fetal_jax.data.lazy_volumes import Volumes
from fetal_jax.detectors.detector import Found
from fetal_jax.examples import Examples, ask_all
from fetal_jax.geometry import Grid
from fetal_jax.runs.face_frame import Frame, as_float32, fit_frames
from fetal_jax.shape_model import ShapeModel
from fetal_jax.visibility_model import VisibilityModel, judge_visibility

LEAST_AGREEING = 0.5  # with less of what was found in agreement there is no frame to trust
KEPT_POSES = (8, 3, 1)  # of all, after one look of the second network, after two, after three
POSES = {1: "C1", 24: "O"}  # -> their group, as `Rotation.create_group` names it


class Look(NamedTuple):
    """N cases looked at in their frames.

    points_mm, argmax_mm: [N, L, 3] RAS+; mass: [N, L]; local_mm, local_guess_mm: [N, L, R] or None,
      as of `detector.Found`, in mm of the world.
    shape_mm: [N, L, 3] RAS+, the mean shape in the frame that was looked at: what the second
      network must beat.
    agreeing: [N], the share of what was found before that agrees with the frame.
    likeness: [N], 0 to 1, how like a face is what was found, as of `frames.FrameFit`.
    seen: [N, L], the chance that it can be seen, not yet calibrated; or None.
    """

    points_mm: np.ndarray
    argmax_mm: np.ndarray
    mass: np.ndarray
    local_mm: np.ndarray | None
    local_guess_mm: np.ndarray | None
    shape_mm: np.ndarray
    agreeing: np.ndarray
    likeness: np.ndarray
    seen: np.ndarray | None = None


def has_frame(looks: Sequence[Look]) -> np.ndarray:
    """[N] bool: whether enough of what was found before the first look agrees with its frame."""
    return looks[0].agreeing >= LEAST_AGREEING


def list_turns(poses: int) -> np.ndarray:
    """[K, 3, 3], the rotations in which the first network looks at a scan; the first turns nothing.

    24 are those that carry a cube onto itself: any rotation is within 62.8° of one of them.

    Args:
      poses: K, a key of POSES.
    """
    group = Rotation.create_group(POSES[poses])
    return group[np.argsort(group.magnitude().round(6), kind="stable")].as_matrix()


def look_again(
    frame: Frame,
    find: Callable[[Examples], Found],
    sample: Callable[[int, Grid], np.ndarray],
    points_mm: np.ndarray,
    weights: np.ndarray,
    *,
    passes: int,
    visibility: VisibilityModel | None = None,
    truth_mm: np.ndarray | None = None,
) -> list[Look]:
    """Look at N cases in their frames, so many times; each pass has the points of the one before.

    Args:
      find: of the second network.
      sample: (case, grid) -> its volume [D, H, W] there.
      points_mm, weights: [N, L, 3] RAS+ and [N, L], what was found before.
      visibility: what tells whether a landmark can be seen; None: nothing does.
      truth_mm: [N, L, 3], where it is known, for `Found.local_mm`; any number where absent.
    """
    looks = []
    fitted = fit_frames(frame, points_mm, weights)
    for _ in range(passes):
        grids = [Grid(frame.box.shape, matrix @ frame.box.affine) for matrix in fitted.matrices]
        looks_at = [partial(sample, i, grid) for i, grid in enumerate(grids)]
        examples = Examples(volumes=Volumes(looks_at, frame.box.shape))
        if truth_mm is not None:
            there = [grid.to_voxels(points) for grid, points in zip(grids, truth_mm, strict=True)]
            examples = ask_all(examples.volumes, np.stack(there))
        found = find(examples)
        size = np.array([grid.spacing_mm for grid in grids]) / frame.box.spacing_mm
        shape_mm = [m[:3, :3] @ frame.shape_mm.T + m[:3, 3:] for m in fitted.matrices]
        points_mm, before = to_world(grids, found.points_vox), fitted
        fitted = fit_frames(frame, points_mm, found.mass)
        looks.append(
            Look(
                points_mm,
                to_world(grids, found.argmax_vox),
                found.mass,
                *(
                    None if local is None else local * size[:, None, None]
                    for local in (found.local_mm, found.local_guess_mm)
                ),
                np.stack(shape_mm).swapaxes(1, 2),
                before.agreeing,
                fitted.likeness,
                _judge_seen(visibility, found),
            )
        )
    return looks


def choose_pose(
    frame: Frame,
    find: Callable[[Examples], Found],
    sample: Callable[[Grid], np.ndarray],
    points_mm: np.ndarray,
    weights: np.ndarray,
) -> tuple[int, np.ndarray, np.ndarray]:
    """Which of K poses the first network was right in, as the second network has it.

    It looks at the frame of each; those in which what it finds is most like a face are looked at
    again, from these points. What is no face may seem one for a look, seldom longer.

    Args:
      find, frame: as of `look_again`.
      sample: grid -> the scan's volume there.
      points_mm, weights: [K, L, 3] RAS+ and [K, L], what the first network found in each pose.

    Returns:
      The pose, and what the second network found from there, [L, 3] RAS+ and [L].
    """
    left = np.arange(len(points_mm))
    for count in KEPT_POSES:
        (look,) = look_again(
            frame, find, lambda _, grid: sample(grid), points_mm, weights, passes=1
        )
        best = np.argsort(-look.likeness, kind="stable")[:count]
        left, points_mm, weights = left[best], look.points_mm[best], look.mass[best]
    return int(left[0]), points_mm[0], weights[0]


def _judge_seen(visibility: VisibilityModel | None, found: Found) -> np.ndarray | None:
    if visibility is None:
        return None
    return np.asarray(judge_visibility(visibility, found.evidence))


def complete_points(frame: Frame, points_mm: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[N, L, 3] RAS+: where the shape of faces expects each landmark, given what was found.

    Args:
      points_mm: [N, L, 3] RAS+.
      weights: [N, L], 0 to 1: how much each point is to count, as the chance that it can be seen.
    """
    middles = np.median(points_mm, axis=1)
    near = as_float32(points_mm - middles[:, None])
    shape = ShapeModel(*map(as_float32, frame.shape))
    tolerance_mm = as_float32(frame.tolerance_mm)
    completed = [
        _complete()(shape, points, each, tolerance_mm)
        for points, each in zip(near, as_float32(weights), strict=True)
    ]
    return np.stack(completed).astype(np.float64) + middles[:, None]


@cache
def _complete() -> Callable:
    return jax.jit(complete_one)


def complete_one(
    shape: ShapeModel, points_mm: jax.Array, weights: jax.Array, tolerance_mm: jax.Array
) -> jax.Array:
    """`complete_points` of one case [L, 3]."""
    placed = frames.fit_frame(shape.mean_mm, points_mm, weights, tolerance_mm=tolerance_mm)
    there = frames.carry_points(frames.invert(placed.similarity), points_mm)
    expected = shape_model.complete_shape(shape, there, weights)
    return frames.carry_points(placed.similarity, expected)


def to_world(grids: Sequence[Grid], points_vox: np.ndarray) -> np.ndarray:
    """[N, L, 3] RAS+ mm of voxels [N, L, 3], each on its own grid."""
    return np.stack([grid.to_world(p) for grid, p in zip(grids, points_vox, strict=True)])
