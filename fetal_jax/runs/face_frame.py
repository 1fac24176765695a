"""The face's own frame, as the training cases give it: its mean shape, and the box round it.

RUN/aligned/frame.json keeps it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from fetal_jax import frames, shape_model
from fetal_jax.data.placement import fit_box
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.runs import folder
from fetal_jax.runs.aligned import FOLDER
from fetal_jax.shape_model import ShapeModel

TOLERANCE = 0.25  # of the shape's root mean square radius: a point so near to its place agrees


class Frame(NamedTuple):
    """What the training cases say of a face: content of frame.json.

    shape: how faces vary about their mean; box: the grid round it, both in mm of the frame.
    """

    shape: ShapeModel
    box: Grid

    @property
    def shape_mm(self) -> np.ndarray:
        """[L, 3], the mean shape."""
        return self.shape.mean_mm

    @property
    def tolerance_mm(self) -> float:
        return TOLERANCE * float(np.sqrt((self.shape_mm**2).sum(axis=1).mean()))


def describe_box(frame: Frame) -> str:
    """For a person."""
    shape = "×".join(map(str, frame.box.shape))
    return f"second look: a box of {shape} at {frame.box.spacing_mm:g} mm in the face's frame"


def find_posed(points_mm: np.ndarray) -> np.ndarray:
    """Indices of the cases [N, L, 3] with three landmarks or more: the others lie in no frame."""
    return np.flatnonzero(np.isfinite(points_mm).all(axis=-1).sum(axis=1) >= 3)


def fit_training_frame(
    config: FrozenConfigDict,
    points_mm: np.ndarray,
    visible: np.ndarray,
    mirror_index: np.ndarray | None,
) -> tuple[Frame, np.ndarray]:
    """The frame of training cases, and the frame [N, 4, 4] that each lies in by its own points.

    Args:
      points_mm: [N, L, 3] RAS+, NaN where absent, of `find_posed`'s cases.
      visible: [N, L] bool; how shapes vary is learned from what can be seen.

    Raises:
      InputError: their landmarks make no frame.
    """
    chosen = config.aligned
    try:
        shape_mm, shapes_mm = frames.fit_mean_shape(points_mm, mirror_index)
    except ValueError as error:
        raise InputError(f"config.aligned.on: {error}") from None
    box = fit_box(
        shape_mm,
        spacing_mm=chosen.spacing_mm,
        margin_mm=chosen.margin_mm,
        multiple=2 ** (len(chosen.widths) - 1) * config.devices.depth,
        voxels=config.grid.side**3,
    )
    shapes_mm = np.where(visible[..., None], shapes_mm, np.nan)
    frame = Frame(shape_model.fit_shape_model(shape_mm, shapes_mm, mirror_index), box)
    return frame, place_truth(frame, points_mm)


def expect_landmarks(visible_share: Sequence[float] | None, frame: Frame) -> np.ndarray | None:
    """[L, 3] voxels of the box, where each landmark is expected, for `build_detector`.

    None where the data set does not say what can be seen: then nothing is said of that.

    Args:
      visible_share: of `DataRecord`.
    """
    if visible_share is None:
        return None
    return frame.box.to_voxels(frame.shape_mm)


def place_truth(frame: Frame, points_mm: np.ndarray) -> np.ndarray:
    """[N, 4, 4]: the frame of each case by least squares from its true points [N, L, 3]."""
    known = np.isfinite(points_mm).all(axis=-1)
    middles = np.where(known[..., None], points_mm, 0.0).sum(axis=1) / known.sum(axis=1)[:, None]
    near = np.where(known[..., None], points_mm - middles[:, None], 0.0)
    fits = _fit_truth()(as_float32(frame.shape_mm), as_float32(near), as_float32(known))
    return to_matrices(fits, middles)


@cache
def _fit_truth() -> Callable:
    return jax.jit(jax.vmap(frames.fit_similarity, in_axes=(None, 0, 0)))


@cache
def _fit_found() -> Callable:
    return jax.jit(frames.fit_frame)


def as_float32(array) -> np.ndarray:
    return np.asarray(array, np.float32)


def to_matrices(fits: frames.Similarity, middles: np.ndarray) -> np.ndarray:
    """[N, 4, 4] float64 from N similarities onto points about their middles [N, 3]."""
    matrices = np.tile(np.eye(4), (len(middles), 1, 1))
    scale = np.asarray(fits.scale, np.float64)[:, None, None]
    matrices[:, :3, :3] = scale * np.asarray(fits.rotation, np.float64)
    matrices[:, :3, 3] = np.asarray(fits.shift, np.float64) + middles
    return matrices


class FittedFrames(NamedTuple):
    """The frames of N cases.

    matrices: [N, 4, 4], mm of the frame -> mm of the world.
    agreeing, likeness: [N], of the points with the frame, as of `frames.FrameFit`.
    """

    matrices: np.ndarray
    agreeing: np.ndarray
    likeness: np.ndarray


def fit_frames(frame: Frame, points_mm: np.ndarray, weights: np.ndarray) -> FittedFrames:
    """The frames of found points [N, L, 3]; weights: [N, L], how sure each point seems."""
    middles = np.median(points_mm, axis=1)
    near = as_float32(points_mm - middles[:, None])
    shape, tolerance_mm = as_float32(frame.shape_mm), as_float32(frame.tolerance_mm)
    fits = [  # one by one: a program for any number of cases
        _fit_found()(shape, points, sure, tolerance_mm=tolerance_mm)
        for points, sure in zip(near, as_float32(weights), strict=True)
    ]
    fits = jax.tree.map(lambda *leaves: np.stack(leaves), *fits)
    shares = (np.asarray(share, np.float64) for share in (fits.agreeing, fits.likeness))
    return FittedFrames(to_matrices(fits.similarity, middles), *shares)


def write_frame(workdir: Path, frame: Frame) -> None:
    """WORKDIR/aligned/frame.json."""
    shape = {name: np.asarray(value).tolist() for name, value in frame.shape._asdict().items()}
    content = {
        "shape": shape,
        "box": {"shape": list(frame.box.shape), "affine": frame.box.affine.tolist()},
    }
    folder.write_json(workdir / FOLDER / "frame.json", content)


def read_frame(workdir: Path) -> Frame:
    """Raises InputError where there is none."""
    path = workdir / FOLDER / "frame.json"
    content = folder.read_json(path)
    try:
        box = Grid(tuple(content["box"]["shape"]), np.array(content["box"]["affine"], np.float64))
        kept = content["shape"]
        mean, modes = (np.array(kept[name], np.float64) for name in ("mean_mm", "modes_mm"))
        modes = modes.reshape(-1, *mean.shape)
        return Frame(ShapeModel(mean, modes, float(kept["noise_mm"])), box)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the frame of a run, got {error!r}") from None
