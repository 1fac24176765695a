"""Scans of every kind of size and affine, for what must do with each what preprocess does."""

import numpy as np
from noise_runs import AFFINE
from scipy.spatial.transform import Rotation

from fetal_jax.data.preprocess import Preprocessing

TURN = Rotation.from_rotvec([0.5, -0.9, 0.4]).as_matrix()
SETTINGS = Preprocessing(8, 3.0, (0.5, 99.5))  # of the runs on the cohort of noise


def make_affine(axes, sizes_mm, origin_mm=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(axes) * sizes_mm, origin_mm
    return affine


# name -> shape and affine; the grid has 8 voxels of 3 mm
SCANS = {
    "as trained": ((12, 12, 12), AFFINE),
    "permuted, flipped": ((12, 12, 12), AFFINE[:, [2, 0, 1, 3]] @ np.diag([1, -1, 1, 1])),
    "oblique, far away": ((12, 12, 12), make_affine(TURN, (2, 2, 2), (700, -300, 900))),
    "anisotropic": ((31, 9, 12), make_affine(np.eye(3), (0.7, 3.5, 2))),
    "anisotropic, oblique": ((31, 9, 12), make_affine(TURN, (0.7, 2.5, 1))),
    "larger than the grid, coarser": ((12, 12, 12), make_affine(TURN, (5, 5, 5))),
    "smaller than the grid, fine": ((10, 11, 24), make_affine(TURN, (0.9, 0.9, 0.2))),
    "one slice": ((16, 14, 1), make_affine(np.eye(3), (1.5, 1.5, 3))),
}


def make_noise(shape):
    """[X, Y, Z] int16, negative ones too."""
    return np.random.default_rng(0).integers(-90, 255, shape, dtype=np.int16)


# three sizes and four poses
POSED = ("permuted, flipped", "oblique, far away", "anisotropic, oblique", "one slice")
