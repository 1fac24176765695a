"""From a file's voxels to the network's grid: resampled, smoothed where coarser, scaled to [0, 1].

Transforms are taken whole (the 4x4 affine, in float64), so that a volume gives the same grid
however its file stores the axes.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from fetal_jax import geometry, metrics
from fetal_jax.data import grid_cache
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset, read_points, read_readings
from fetal_jax.errors import InputError
from fetal_jax.io.volumes import Volume, read_header, read_volume

# Annotators click on a border voxel's rim: so far outside, in file voxels, a point is still inside.
BORDER_VOX = 2.0
# Side of the grid where the config leaves it open: what two cores can train on in minutes.
DEFAULT_SIDE = 48


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a volume; saved with a run, so that a new scan gets the same.

    percentiles: the intensities, low and high, that become 0 and 1.
    """

    side: int
    spacing_mm: float
    percentiles: tuple[float, float]
    trust_missing_affine: bool = False


def propose_grid(dataset: Dataset, *, side: int, spacing_mm: float, **header) -> tuple[int, float]:
    """Side and spacing where the config leaves them open (0): the grid then holds every volume.

    The spacing is rounded up to 0.01 mm; it is not finer than the finest file.
    """
    side = side or DEFAULT_SIDE
    if spacing_mm:
        return side, spacing_mm
    extents, finest = [], []
    for shape, affine in _read_headers(dataset, **header):
        low, high = geometry.world_bounds(shape, affine)
        extents.append((high - low).max())
        finest.append(geometry.voxel_sizes(affine).min())
    spacing = max(max(extents) / side, min(finest))
    # an extent of 96.0000001 mm, float32 in the header, is 96 mm
    return side, math.ceil(round(spacing * 100, 3)) / 100


def _read_headers(dataset, **header):
    try:
        return [read_header(case.volume_path, **header) for case in dataset.cases]
    except InputError:
        pass
    problems = []  # one is bad, so all that are bad are looked for, down to their voxels
    for case in dataset.cases:
        try:
            read_volume(case.volume_path, **header)
        except InputError as error:
            problems += error.problems
    raise InputError(*problems)


def find_cut_cases(dataset: Dataset, *, side: int, spacing_mm: float, **header) -> list[str]:
    """Names of the cases whose volume does not fit into the grid."""
    cut = []
    for case in dataset.cases:
        low, high = geometry.world_bounds(*read_header(case.volume_path, **header))
        if (high - low).max() > side * spacing_mm * 1.005:
            cut.append(case.name)
    return cut


def prepare_volume(
    volume: Volume, preprocessing: Preprocessing
) -> tuple[np.ndarray, geometry.Grid]:
    """Resample one volume to its world-aligned grid, centred on the volume.

    Where the grid is coarser than the file the volume is smoothed first, by a gaussian whose width
    at half maximum, with the file's own voxel, makes one grid voxel. Outside the volume it is 0.

    Returns:
      [D, H, W] float32 in [0, 1], axes running Right, Anterior, Superior, and the grid.
    """
    side, spacing_mm = preprocessing.side, preprocessing.spacing_mm
    grid = geometry.centre_grid(
        volume.voxels.shape, volume.affine, side=side, spacing_mm=spacing_mm
    )
    voxels = volume.voxels.astype(np.float32)
    low, high = map(float, np.percentile(voxels, preprocessing.percentiles))
    if not high > low:
        raise InputError(
            f"{volume.path}: expected a volume with contrast, got {low:g} at both percentiles "
            f"{preprocessing.percentiles[0]:g} and {preprocessing.percentiles[1]:g}"
        )
    voxels = np.clip((voxels - low) / (high - low), 0.0, 1.0)
    ratio = spacing_mm / geometry.voxel_sizes(volume.affine)
    sigmas = np.sqrt(np.maximum(ratio**2 - 1, 0)) / (2 * math.sqrt(2 * math.log(2)))
    if sigmas.any():
        voxels = ndimage.gaussian_filter(voxels, sigmas)
    to_file = np.linalg.inv(volume.affine) @ grid.affine
    resampled = ndimage.affine_transform(
        voxels,
        to_file[:3, :3],
        to_file[:3, 3],
        output_shape=(side,) * 3,
        order=1,
        mode="grid-constant",  # "constant" drops a border voxel that rounding puts just outside
    )
    return resampled, grid


def prepare_dataset(
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    coordinate_system: str | None = None,
    cache: Path | None = None,
) -> PreparedCases:
    """Read and resample every case of a data set, several at a time.

    Args:
      cache: a folder to keep the grids in, see `grid_cache`; None for none.

    Raises:
      InputError: one line for each case that cannot be read, has a landmark outside its volume, or
        has one outside the grid.
    """

    def prepare(case):
        try:
            return _prepare_case(case, dataset.labels, preprocessing, coordinate_system, cache)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(prepare, dataset.cases))
    problems = [line for f in found if isinstance(f, InputError) for line in f.problems]
    if problems:
        raise InputError(*problems)
    volumes, grids, points_mm, visible, spread_mm = zip(*found, strict=True)
    points_mm = np.stack(points_mm)
    present = np.isfinite(points_mm).all(axis=-1)
    points_vox = np.stack([g.to_voxels(p) for g, p in zip(grids, points_mm, strict=True)])
    return PreparedCases(
        dataset.cases,
        tuple(grids),
        np.stack(volumes),
        points_mm,
        np.where(present[..., None], points_vox, 0.0).astype(np.float32),
        present,
        np.stack(visible),
        np.stack(spread_mm),
    )


def _prepare_case(case, labels, preprocessing, coordinate_system, cache):
    def make():
        volume = read_volume(
            case.volume_path, trust_missing_affine=preprocessing.trust_missing_affine
        )
        voxels, _ = prepare_volume(volume, preprocessing)
        shape = np.array(volume.voxels.shape)
        return {"voxels": voxels.astype(np.float16), "shape": shape, "affine": volume.affine}

    kept = grid_cache.fetch(cache, case.volume_path, preprocessing, make)
    shape, affine = tuple(int(n) for n in kept["shape"]), kept["affine"]
    grid = geometry.centre_grid(
        shape, affine, side=preprocessing.side, spacing_mm=preprocessing.spacing_mm
    )
    points, visible = read_points(case, labels, coordinate_system=coordinate_system)
    readings = read_readings(case, labels, coordinate_system=coordinate_system)
    index = geometry.apply_affine(np.linalg.inv(affine), points)
    reach = np.array(shape) - 1 + BORDER_VOX
    outside = ((index < -BORDER_VOX) | (index > reach)).any(axis=-1)  # NaN compares false
    if outside.any():
        bounds = geometry.world_bounds(shape, affine)
        raise InputError(_say_outside(case, labels, points, outside, *bounds, "volume"))
    margin_mm = BORDER_VOX * geometry.voxel_sizes(affine).max()  # as on the volume's rim
    outside = np.isfinite(points).all(axis=-1) & ~grid.contains(points, margin_mm=margin_mm)
    if outside.any():
        low, high = geometry.world_bounds((grid.side,) * 3, grid.affine)
        raise InputError(_say_outside(case, labels, points, outside, low, high, "grid"))
    return kept["voxels"], grid, points, visible, metrics.measure_spread(readings)


def _say_outside(case, labels, points, outside, low, high, what):
    def mm(values):
        return "(" + ", ".join(f"{v:.1f}" for v in values) + ")"

    first = int(np.argmax(outside))
    source = case.landmarks_path or case.readings[0]
    more = f" and {int(outside.sum()) - 1} more" if outside.sum() > 1 else ""
    return (
        f"{source}: expected landmarks inside the {what} of {case.volume_path.name}, "
        f"RAS {mm(low)} to {mm(high)} mm, got {labels[first]} at {mm(points[first])}{more}"
    )
