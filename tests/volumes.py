"""Volumes whose values are a formula of the place in mm, and small data sets of noise."""

from pathlib import Path

import nibabel as nib
import numpy as np

from fetal_jax.data.dataset import read_dataset
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import Volume, write_nifti

SHAPE = (12, 14, 16)
SPACING = np.array([1.5, 1.25, 1.0])
ORIGIN = np.array([-7.25, 4.5, 2.125])  # exact in float32, in which NIfTI keeps them
AFFINE = np.block([[np.diag(SPACING), ORIGIN[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
POINTS = {"nose": [0.0, 15.0, 9.0], "L": [-4.5, 10.0, 12.5], "R": [6.0, 8.25, 5.0]}


def turn(affine, degrees=(20, -35, 50)):
    """The affine turned about all three axes: an oblique volume."""
    turned = affine
    for axis, angle in enumerate(np.deg2rad(degrees)):
        rotation = np.eye(4)
        a, b = [i for i in range(3) if i != axis]
        rotation[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        turned = rotation @ turned
    return turned


OBLIQUE = turn(AFFINE)


def index_to_world(affine, shape):
    """[*shape, 3] mm, the centre of each voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def draw_blobs(affine=AFFINE, shape=SHAPE, width_mm=3.0):
    """A gaussian of its own height at each landmark: no symmetry is left."""
    world = index_to_world(affine, shape)
    volume = 0.0
    for height, point in zip((1.0, 0.8, 0.5), POINTS.values(), strict=True):
        squared = ((world - np.array(point)) ** 2).sum(axis=-1)
        volume = volume + height * np.exp(-squared / (2 * width_mm**2))
    return (1000 * volume).astype(np.float32)


def reorder(voxels, affine, orders):
    """The same volume stored with other axes, by nibabel."""
    stored = nib.orientations.apply_orientation(voxels, orders)
    return stored, affine @ nib.orientations.inv_ornt_aff(orders, voxels.shape)


def make_volume(voxels, affine):
    return Volume(np.asarray(voxels), np.asarray(affine, np.float64), Path("scan.nii.gz"))


def make_data(root, **cases):
    """A data set of noise: for each case its points {label: mm}, shape and spacing, as needed."""
    for name, given in cases.items():
        affine = np.diag([*given.get("spacing", (1.0, 1.0, 1.0)), 1.0])
        shape = given.get("shape", (10, 20, 10))
        voxels = np.random.default_rng(2).integers(0, 200, shape, dtype=np.uint8)
        write_nifti(root / "volumes" / f"{name}.nii.gz", voxels, affine)
        given_points = given.get("points", {"p": (1, 1, 1)})
        points = {label: np.array(p, float) for label, p in given_points.items()}
        write_landmarks(root / "landmarks" / f"{name}.mrk.json", points)
    return read_dataset(root)
