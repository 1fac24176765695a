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
    scaled = scale_intensities(volume, percentiles)
    return resample_volume(scaled, volume.affine, grid)


def scale_intensities(volume: Volume, percentiles: tuple[float, float]) -> np.ndarray:
    """The file's voxels as float32, the two percentiles at 0 and 1 and what lies beyond cut off."""
    voxels = volume.voxels.astype(np.float32)
    low, high = map(float, np.percentile(voxels, percentiles))
    if not high > low:
        raise InputError(
            f"{volume.path}: expected a volume with contrast, got {low:g} at both percentiles "
            f"{percentiles[0]:g} and {percentiles[1]:g}"
        )
    return np.clip((voxels - low) / (high - low), 0.0, 1.0)


def resample_volume(voxels: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Voxels [X, Y, Z] with their affine on a grid, trilinear; 0 outside.

    Where the grid is coarser than the file the volume is smoothed first, by a gaussian whose width
    at half maximum, with the file's own voxel, makes one grid voxel.
    """
    ratio = grid.spacing_mm / geometry.voxel_sizes(affine)
    sigmas = np.sqrt(np.maximum(ratio**2 - 1, 0)) / (2 * math.sqrt(2 * math.log(2)))
    if sigmas.any():
        voxels = ndimage.gaussian_filter(voxels, sigmas)
    to_file = np.linalg.inv(affine) @ grid.affine
    return ndimage.affine_transform(
        voxels,
        to_file[:3, :3],
        to_file[:3, 3],
        output_shape=grid.shape,
        order=1,
        mode="grid-constant",  # "constant" drops a border voxel that rounding puts just outside
    )
