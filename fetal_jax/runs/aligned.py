"""The second look: a run's own points give the face's frame, and a second network looks there.

RUN/aligned/ has checkpoints and a log as a run's folder, frame.json with the mean shape and the box
round it, and visibility.json with what tells what can be seen; its config follows from the run's,
see `derive_config`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from scipy.spatial.transform import Rotation

from fetal_jax import frames, shape_model
from fetal_jax.data.placement import Jitter, fit_box
from fetal_jax.detectors.detector import Found
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.geometry import Grid
from fetal_jax.runs import folder
from fetal_jax.shape_model import ShapeModel
from fetal_jax.visibility_model import VisibilityModel, judge_visibility

FOLDER = "aligned"
LEAST_AGREEING = 0.5  # with less of what was found in agreement there is no frame to trust
KEPT_POSES = (8, 3, 1)  # of all, after one look of the second network, after two, after three
POSES = {1: "C1", 24: "O"}  # -> their group, as `Rotation.create_group` names it
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


def is_on(config: FrozenConfigDict) -> bool:
    """Whether a run looks twice; one of before that was possible does not."""
    return "aligned" in config and config.aligned.on


def count_steps(config: FrozenConfigDict) -> int:
    """For how many steps the second network is to be trained; 0 where there is none."""
    return config.aligned.steps if is_on(config) else 0


def read_min_visible(config: FrozenConfigDict) -> float:
    """From what chance on a landmark counts as visible; 0 where nothing says such chances."""
    return config.aligned.min_visible if is_on(config) else 0.0


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
    fits = _fit_truth()(_as_float32(frame.shape_mm), _as_float32(near), _as_float32(known))
    return to_matrices(fits, middles)


@cache
def _fit_truth() -> Callable:
    return jax.jit(jax.vmap(frames.fit_similarity, in_axes=(None, 0, 0)))


@cache
def _fit_found() -> Callable:
    return jax.jit(frames.fit_frame)


def _as_float32(array) -> np.ndarray:
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
    near = _as_float32(points_mm - middles[:, None])
    shape, tolerance_mm = _as_float32(frame.shape_mm), _as_float32(frame.tolerance_mm)
    fits = [  # one by one: a program for any number of cases
        _fit_found()(shape, points, sure, tolerance_mm=tolerance_mm)
        for points, sure in zip(near, _as_float32(weights), strict=True)
    ]
    fits = jax.tree.map(lambda *leaves: np.stack(leaves), *fits)
    shares = (np.asarray(share, np.float64) for share in (fits.agreeing, fits.likeness))
    return FittedFrames(to_matrices(fits.similarity, middles), *shares)


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
        examples = Examples(volumes=np.stack([sample(i, grid) for i, grid in enumerate(grids)]))
        if truth_mm is not None:
            there = [grid.to_voxels(points) for grid, points in zip(grids, truth_mm, strict=True)]
            # with a map, as the report asks for one: one program for both
            shown = np.zeros(len(grids), np.int32)
            examples = examples._replace(points_vox=_as_float32(there), shown=shown)
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
    near = _as_float32(points_mm - middles[:, None])
    shape = ShapeModel(*map(_as_float32, frame.shape))
    tolerance_mm = _as_float32(frame.tolerance_mm)
    completed = [
        _complete()(shape, points, each, tolerance_mm)
        for points, each in zip(near, _as_float32(weights), strict=True)
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


def derive_config(config: FrozenConfigDict, frame: Frame) -> FrozenConfigDict:
    """The config of the second network, as that of a run: another grid, width and length."""
    derived = ConfigDict(config.to_dict())
    chosen = config.aligned
    derived.grid.spacing_mm = frame.box.spacing_mm
    derived.model.widths = chosen.widths
    derived.train.steps, derived.train.epochs = chosen.steps, 0
    # the placement moves the box instead
    derived.augment.max_degrees = derived.augment.max_scale = derived.augment.max_shift_vox = 0.0
    return FrozenConfigDict(derived)


def read_jitter(config: FrozenConfigDict) -> Jitter:
    chosen = config.aligned
    return Jitter(chosen.max_degrees, chosen.max_scale, chosen.max_shift_vox)


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


def write_visibility(workdir: Path, model: VisibilityModel) -> None:
    """WORKDIR/aligned/visibility.json."""
    content = {name: np.asarray(value).tolist() for name, value in model._asdict().items()}
    folder.write_json(workdir / FOLDER / "visibility.json", content)


def read_visibility(workdir: Path) -> VisibilityModel | None:
    """None where the run does not say what can be seen, or is not yet trained."""
    path = workdir / FOLDER / "visibility.json"
    if not path.exists():
        return None
    content = folder.read_json(path)
    try:
        offsets, weights = (np.array(content[name], np.float32) for name in VisibilityModel._fields)
        if weights.shape[:1] != offsets.shape or weights.ndim != 2:
            raise ValueError(f"weights {weights.shape} and offsets {offsets.shape}")
        return VisibilityModel(offsets, weights)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected what a run learned of what can be seen, got {error!r}"
        ) from None
