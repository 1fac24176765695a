"""Where the network looks: from what is known of a case to the grid that its volume is put on."""

import math
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import numpy as np

from fetal_jax import geometry
from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import Dataset
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.volumes import read_header, read_volume

# Side of the grid where the config leaves it open: what two cores can train on in minutes.
DEFAULT_SIDE = 48


class Source(NamedTuple):
    """What a placement may look at: how a file's voxels lie, and the landmarks if they are known.

    shape: of the file's array; affine: [4, 4], its voxels -> RAS+ mm.
    points_mm: [L, 3] RAS+, NaN where absent; None for a new scan.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    points_mm: np.ndarray | None = None


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
      InputError: one line for each file of the data set that cannot be read, if one of these is.
    """
    side = side or DEFAULT_SIDE
    if spacing_mm:
        return side, spacing_mm
    extents, finest = [], []
    for shape, affine in _read_headers(dataset, fitted, trust_missing_affine):
        low, high = geometry.world_bounds(shape, affine)
        extents.append((high - low).max())
        finest.append(geometry.voxel_sizes(affine).min())
    spacing = max(max(extents) / side, min(finest))
    # an extent of 96.0000001 mm, float32 in the header, is 96 mm
    return side, math.ceil(round(spacing * 100, 3)) / 100


def _read_headers(dataset, fitted, trust_missing_affine):
    trust = dict(trust_missing_affine=trust_missing_affine)
    try:
        return [read_header(dataset.cases[i].volume_path, **trust) for i in fitted]
    except InputError:
        pass
    problems = []  # one is bad, so all that are bad are looked for, down to their voxels
    for case in dataset.cases:
        try:
            read_volume(case.volume_path, **trust)
        except InputError as error:
            problems += error.problems
    raise InputError(*problems)


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
    low, high = geometry.world_bounds(shape, affine)
    return bool((high - low).max() > width_mm * 1.005)
