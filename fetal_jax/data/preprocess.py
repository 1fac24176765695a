"""From a file's voxels to the network's grid: resampled, smoothed where coarser, scaled to [0, 1].

Transforms are taken whole (the 4x4 affine, in float64), so that a volume gives the same grid
however its file stores the axes.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fetal_jax import geometry
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.volumes import Volume

LARGEST = 1e37  # of a voxel: float32 ends at 3e38
TRUNCATE = 4.0  # a gaussian ends after so many σ


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a volume; saved with a run, so that a new scan gets the same.

    side, spacing_mm: of the grid.
    percentiles: the intensities, low and high, that become 0 and 1.
    """

    side: int
    spacing_mm: float
    percentiles: tuple[float, float]
    trust_missing_affine: bool = False


def prepare_volume(volume: Volume, grid: Grid, percentiles: tuple[float, float]) -> np.ndarray:
    """One volume on a grid: [D, H, W] float32 in [0, 1], 0 outside the volume.

    Raises:
      InputError: no contrast between the percentiles.
    """
    levels = find_levels(volume, percentiles)
    return sample_volume(volume.voxels, volume.affine, levels, grid)


def find_levels(volume: Volume, percentiles: tuple[float, float]) -> tuple[float, float]:
    """The intensities at two percentiles of a file's voxels.

    Raises:
      InputError: they are the same.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        copy = volume.voxels.astype(np.float32)
        low, high = map(float, np.percentile(copy, percentiles, overwrite_input=True))
    if not abs(low) < LARGEST or not abs(high) < LARGEST:
        raise InputError(
            f"{volume.path}: expected intensities below {LARGEST:g}, got {low:g} and {high:g} at "
            f"percentiles {percentiles[0]:g} and {percentiles[1]:g}"
        )
    if not high > low:
        raise InputError(
            f"{volume.path}: expected a volume with contrast, got {low:g} at both percentiles "
            f"{percentiles[0]:g} and {percentiles[1]:g}"
        )
    return low, high


def sample_volume(
    voxels: np.ndarray, affine: np.ndarray, levels: tuple[float, float], grid: Grid
) -> np.ndarray:
    """A file's voxels [X, Y, Z] on a grid, `levels` at 0 and 1 and what lies beyond cut off.

    Trilinear, 0 outside. Where the grid is coarser than the file the volume is smoothed first, by a
    gaussian whose width at half maximum, with the file's own voxel, makes one grid voxel. Only
    those of the file's voxels are touched that the grid can see.
    """
    ratio = grid.spacing_mm / geometry.voxel_sizes(affine)
    sigmas = np.sqrt(np.maximum(ratio**2 - 1, 0)) / (2 * math.sqrt(2 * math.log(2)))
    to_file = np.linalg.inv(affine) @ grid.affine
    seen = _find_seen(to_file, grid.shape, voxels.shape, margin=np.ceil(TRUNCATE * sigmas) + 2)
    low, high = levels
    scaled = voxels[seen].astype(np.float32)
    if not scaled.size:
        return np.zeros(grid.shape, np.float32)
    # in place: a clinical volume is half a gigabyte
    scaled -= low
    scaled /= high - low
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if sigmas.any():
        ndimage.gaussian_filter(scaled, sigmas, truncate=TRUNCATE, output=scaled)
    return ndimage.affine_transform(
        scaled,
        to_file[:3, :3],
        to_file[:3, 3] - [axis.start for axis in seen],
        output_shape=grid.shape,
        order=1,
        mode="grid-constant",  # "constant" drops a border voxel that rounding puts just outside
    )


def _find_seen(
    to_file: np.ndarray, grid_shape, file_shape, margin: np.ndarray
) -> tuple[slice, slice, slice]:
    """The box of a file's voxels that a grid lies in, and a margin of voxels [3] round it."""
    low, high = geometry.world_bounds(grid_shape, to_file)  # of this "world", the file's voxels
    starts = np.clip(np.floor(low - margin), 0, file_shape).astype(int)
    stops = np.clip(np.ceil(high + margin) + 1, 0, file_shape).astype(int)
    return tuple(slice(a, max(a, b)) for a, b in zip(starts, stops, strict=True))
