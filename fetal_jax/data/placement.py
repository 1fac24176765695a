"""Where the network looks: from what is known of a case to the grid that its volume is put on."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from fetal_jax import geometry
from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import Dataset
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.volumes import read_header, read_volume

# Side of the grid where the config leaves it open: what two cores can train on in minutes.
DEFAULT_SIDE = 48
# So many times longer or shorter than the middle one, a volume's header is in another unit.
ODD_EXTENT = 8.0
# Beyond these, all volumes of a data set are in another unit.
LEAST_MM, MOST_MM = 0.5, 3000.0
# Margin round a mean shape where the config leaves it open, as a share of the shape's length.
MARGIN_SHARE = 0.15


class Source(NamedTuple):
    """What a placement may look at: how a file's voxels lie, and the landmarks if they are known.

    shape: of the file's array; affine: [4, 4], its voxels -> RAS+ mm.
    points_mm: [L, 3] RAS+, NaN where absent; None for a new scan.
    frame: [4, 4], mm of the face's own frame -> RAS+ mm; None where there is none yet.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    points_mm: np.ndarray | None = None
    frame: np.ndarray | None = None


class Placement(NamedTuple):
    """A way to choose grids.

    place: (source, random numbers or None) -> grid. With None it is the grid to evaluate on.
    varies: whether training asks for another grid at each step, with random numbers; else a case
      is put on its grid once and kept.
    """

    place: Callable[[Source, np.random.Generator | None], Grid]
    varies: bool = False


def centre_placement(*, side: int, spacing_mm: float) -> Placement:
    """A cube along the world's axes in the middle of each volume."""

    def place(source: Source, rng: np.random.Generator | None = None) -> Grid:
        return geometry.centre_grid(source.shape, source.affine, side=side, spacing_mm=spacing_mm)

    return Placement(place)


def upright_placement(*, side: int, spacing_mm: float) -> Placement:
    """The cube of `centre_placement`, turned until the face stands upright in it."""
    centre = centre_placement(side=side, spacing_mm=spacing_mm)

    def place(source: Source, rng: np.random.Generator | None = None) -> Grid:
        axes = source.frame[:3, :3]
        return geometry.turn_grid(centre.place(source), axes / np.cbrt(np.linalg.det(axes)))

    return Placement(place)


class Jitter(NamedTuple):
    """How far a box may be off when a network learns to look into it.

    max_degrees: of a rotation about the box's middle; max_scale: a share; max_shift_vox: along each
    axis, in voxels of the box.
    """

    max_degrees: float
    max_scale: float
    max_shift_vox: float


def frame_placement(box: Grid, jitter: Jitter) -> Placement:
    """A box that follows the face: where it lies in the face's frame, carried by `Source.frame`.

    With random numbers it is off as a frame is that was fitted to points that were found.

    Args:
      box: in mm of the frame.
    """

    def place(source: Source, rng: np.random.Generator | None = None) -> Grid:
        motion = np.eye(4) if rng is None else _sample_jitter(rng, box, jitter)
        return Grid(box.shape, source.frame @ motion @ box.affine)

    return Placement(place, varies=True)


def _sample_jitter(rng: np.random.Generator, box: Grid, jitter: Jitter) -> np.ndarray:
    """A motion [4, 4] of the frame about the middle of the box."""
    axis = rng.normal(size=3)
    # small rotations fill a ball of rotation vectors evenly
    angle = np.deg2rad(jitter.max_degrees) * rng.random() ** (1 / 3)
    rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    scale = 1 + jitter.max_scale * rng.uniform(-1, 1)
    shift = jitter.max_shift_vox * box.spacing_mm * rng.uniform(-1, 1, 3)
    middle = box.to_world((np.array(box.shape) - 1) / 2)
    motion = np.eye(4)
    motion[:3, :3] = scale * rotation
    motion[:3, 3] = middle + shift - motion[:3, :3] @ middle
    return motion


def fit_box(
    shape_mm: np.ndarray, *, spacing_mm: float, margin_mm: float, multiple: int, voxels: int
) -> Grid:
    """The box round a mean shape, along its frame's axes.

    Args:
      shape_mm: [L, 3].
      spacing_mm: of a face of mean size; 0: so that the box has about `voxels`.
      margin_mm: round the shape; 0: a share of its length, MARGIN_SHARE.
      multiple: of which each side is one.
    """
    low, high = shape_mm.min(axis=0), shape_mm.max(axis=0)
    margin_mm = margin_mm or MARGIN_SHARE * float((high - low).max())
    extent = high - low + 2 * margin_mm
    if not spacing_mm:
        spacing_mm = math.ceil(100 * (extent.prod() / voxels) ** (1 / 3)) / 100
    shape = tuple(int(n) for n in multiple * np.ceil(extent / (spacing_mm * multiple)))
    origin = (low + high) / 2 - spacing_mm * (np.array(shape) - 1) / 2
    return geometry.align_grid(shape, spacing_mm, origin)


def propose_grid(
    dataset: Dataset,
    fitted: Collection[int],
    *,
    side: int,
    spacing_mm: float,
    trust_missing_affine: bool = False,
) -> tuple[int, float]:
    """Side and spacing where the config leaves them open (0): the grid then holds every volume.

    The spacing is rounded up to 0.01 mm; it is not finer than the finest file.

    Args:
      fitted: indices of the cases whose volumes count: those that a network learns from. What tests
        it must not decide anything; `find_cut_cases` says which of those do not fit.

    Raises:
      InputError: one line for each file of the data set that cannot be read, if one of these is;
        or for each that is far longer or shorter than the others, as by a header in another unit.
    """
    side = side or DEFAULT_SIDE
    if spacing_mm:
        return side, spacing_mm
    headers = read_headers(dataset, fitted, trust_missing_affine)
    extents = [measure_extent(shape, affine) for shape, affine in headers]
    finest = [geometry.voxel_sizes(affine).min() for _, affine in headers]
    _check_extents([dataset.cases[i] for i in fitted], extents)
    spacing = max(max(extents) / side, min(finest))
    # an extent of 96.0000001 mm, float32 in the header, is 96 mm
    return side, math.ceil(round(spacing * 100, 3)) / 100


def measure_extent(shape: tuple[int, int, int], affine: np.ndarray) -> float:
    """The longest side of a volume along the world's axes, mm."""
    low, high = geometry.world_bounds(shape, affine)
    return float((high - low).max())


def _check_extents(cases: Sequence[Case], extents: Sequence[float]) -> None:
    middle = float(np.median(extents))
    if not LEAST_MM <= middle <= MOST_MM:
        raise InputError(
            f"expected volumes from {LEAST_MM:g} to {MOST_MM:g} mm long, got {middle:.3g} mm, as "
            f"{cases[0].volume_path} says: mend the headers' unit, or set config.grid.spacing_mm"
        )
    problems = [
        f"{case.volume_path}: expected a volume about as long as the others, {middle:.3g} mm, as "
        f"it decides the grid of all, got {extent:.3g} mm: mend its header, or set "
        "config.grid.spacing_mm"
        for case, extent in zip(cases, extents, strict=True)
        if not middle / ODD_EXTENT <= extent <= middle * ODD_EXTENT
    ]
    if problems:
        raise InputError(*problems)


def read_headers(
    dataset: Dataset, indices: Collection[int], trust_missing_affine: bool
) -> list[tuple[tuple[int, int, int], np.ndarray]]:
    """`read_header` of the cases at `indices`.

    Raises:
      InputError: one line for each volume of the data set that cannot be read, if one of these is.
    """
    trust = dict(trust_missing_affine=trust_missing_affine)
    try:
        return [read_header(dataset.cases[i].volume_path, **trust) for i in indices]
    except InputError:
        # one is bad, so all that are bad are looked for, down to their voxels
        raise InputError(
            *find_unreadable([c.volume_path for c in dataset.cases], **trust)
        ) from None


def find_unreadable(paths: Iterable[Path], *, trust_missing_affine: bool) -> list[str]:
    """A line for each of these volumes that cannot be read."""
    problems = []
    for path in paths:
        try:
            read_volume(path, trust_missing_affine=trust_missing_affine)
        except InputError as error:
            problems += error.problems
    return problems


def find_cut_cases(
    cases: Iterable[Case], *, side: int, spacing_mm: float, trust_missing_affine: bool = False
) -> list[str]:
    """Names of the cases whose volume does not fit into the grid."""
    return [
        case.name
        for case in cases
        if is_cut(
            *read_header(case.volume_path, trust_missing_affine=trust_missing_affine),
            width_mm=side * spacing_mm,
        )
    ]


def is_cut(shape: tuple[int, int, int], affine: np.ndarray, *, width_mm: float) -> bool:
    """Whether a volume is longer than a grid of that width; half a percent is rounding."""
    return measure_extent(shape, affine) > width_mm * 1.005
