"""Scans that nobody has annotated: read ahead of the search, and what a run finds in each."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import geometry
from fetal_jax.data import memory
from fetal_jax.data.cases import BORDER_VOX, FileVoxels, check_contrast, read_voxels
from fetal_jax.data.from_config import build_placement
from fetal_jax.data.placement import Source, is_cut, measure_extent
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix
from fetal_jax.io.volumes import read_header
from fetal_jax.pipeline import run_ahead
from fetal_jax.runs import second_look
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.finished import OpenedModels
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.predictions import Predictions, average_predictions, make_predictions
from fetal_jax.runs.search import Search

IN_MEMORY = 4  # scans at once, that which is searched among them
ODD_SIZE = 2.0  # so many times longer or shorter than those of the training is said


class Prepared(NamedTuple):
    """A scan: its file's voxels, and those [D, H, W] on the grid of the first look."""

    path: Path
    file: FileVoxels
    voxels: np.ndarray
    grid: Grid


class FoundScan(NamedTuple):
    """What was found in a scan.

    odd: sentences about the scan itself; outside: [L] bool, the points that lie outside of it.
    """

    path: Path
    found: Predictions
    odd: list[str]
    outside: np.ndarray

    @property
    def name(self) -> str:
        return split_suffix(self.path, VOLUME_SUFFIXES)[0]


def read_scans(
    paths: Sequence[Path], preprocessing: Preprocessing
) -> Iterator[Prepared | InputError]:
    """Each scan in its turn, or why it cannot be used; the next are read while the caller works.

    At most IN_MEMORY are there at once, the caller's among them, and no more than fit into
    `memory.READING_BYTES`; one that is larger than that is there alone.
    """
    placement = build_placement(preprocessing)

    def prepare(path: Path) -> Prepared | InputError:
        try:
            file = read_voxels(path, preprocessing)
            grid = placement.place(Source(file.voxels.shape, file.affine), None)
            voxels = file.sample(grid)
            check_contrast(path, voxels, grid)
            return Prepared(path, file, voxels, grid)
        except InputError as error:
            return error

    def measure(path: Path) -> int:
        try:
            shape, _ = read_header(path, trust_missing_affine=preprocessing.trust_missing_affine)
        except InputError:
            return 0  # `prepare` says it
        return memory.VOXEL_BYTES * math.prod(shape)

    return run_ahead(prepare, paths, most=IN_MEMORY, measure=measure, bound=memory.READING_BYTES)


def search_scan(scan: Prepared, models: OpenedModels, searches: Sequence[Search]) -> FoundScan:
    """What the models find in a scan by all their looks.

    Args:
      searches: of `search.bind_searches`.
    """
    odd = _describe_size(scan, models.record)
    found, framed = find_points(searches, models.calibrations, scan)
    if models.seconds and not framed.all():
        odd.append(
            f"less than {100 * second_look.LEAST_AGREEING:.0f} % of what the first look found "
            "agrees with a face: its points are given as they are"
        )
    return FoundScan(scan.path, found, odd, _find_outside(scan, found.points_mm[0]))


def find_points(
    searches: Sequence[Search], calibrations: Calibrations, scan: Prepared
) -> tuple[Predictions, np.ndarray]:
    """The models' mean for one scan, and which of them had a frame."""
    found = [
        search(scan.voxels[None], [scan.grid], lambda _, grid: scan.file.sample(grid))
        for search in searches
    ]
    parts = [
        make_predictions(one.points_mm, np.full_like(one.points_mm, np.nan), one.mass)._replace(
            seen=one.seen, completed_mm=one.completed_mm
        )
        for one in found
    ]
    framed = np.array([one.framed[0] for one in found])
    return average_predictions(parts, calibrations), framed


def _describe_size(scan: Prepared, record: DataRecord) -> list[str]:
    """Of a scan that the grid cuts, or of another size than those of the training."""
    said, (shape, affine) = [], (scan.file.voxels.shape, scan.file.affine)
    extent_mm = measure_extent(shape, affine)
    low, high = record.extent_mm or (0.0, math.inf)
    if not low / ODD_SIZE <= extent_mm <= high * ODD_SIZE:
        said.append(
            f"{extent_mm:.3g} mm long, those of the training {low:.3g} to {high:.3g} mm: is its "
            "header right?"
        )
    width_mm = scan.grid.shape[0] * scan.grid.spacing_mm
    if is_cut(shape, affine, width_mm=width_mm):
        low, high = geometry.world_bounds(shape, affine)
        said.append(
            f"{(high - low).max():.0f} mm long, more than the grid's {width_mm:.0f} mm: what lies "
            "outside is not searched"
        )
    return said


def _find_outside(scan: Prepared, points_mm: np.ndarray) -> np.ndarray:
    """[L] bool: which points [L, 3] lie outside the volume."""
    index = geometry.apply_affine(np.linalg.inv(scan.file.affine), points_mm)
    reach = np.array(scan.file.voxels.shape) - 1 + BORDER_VOX
    return ((index < -BORDER_VOX) | (index > reach)).any(axis=-1)
