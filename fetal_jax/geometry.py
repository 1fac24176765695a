"""Affines and the world-aligned grid: where voxels and RAS+ millimetres meet. numpy, float64."""

from dataclasses import dataclass

import numpy as np


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] carried by an affine [4, 4]."""
    points = np.asarray(points, np.float64)
    if affine.shape != (4, 4) or points.shape[-1:] != (3,):
        raise ValueError(
            f"expected an affine [4, 4] and points [..., 3], got {affine.shape} and {points.shape}"
        )
    return points @ affine[:3, :3].T + affine[:3, 3]


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Length in mm of a step along each array axis: [3]."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def world_bounds(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner [3], RAS+ mm, of the box that holds all voxels of a volume.

    Voxels count with their extent, half a voxel beyond the outer centres.
    """
    edges = [(-0.5, n - 0.5) for n in shape]
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(8, 3)
    world = apply_affine(affine, corners)
    return world.min(axis=0), world.max(axis=0)


@dataclass(frozen=True)
class Grid:
    """A cube of `side` isotropic voxels, its axes running Right, Anterior, Superior.

    origin_mm: RAS+ position of the centre of voxel (0, 0, 0).
    """

    side: int
    spacing_mm: float
    origin_mm: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """[4, 4], from voxels of the grid to RAS+ mm."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    def to_voxels(self, points_mm: np.ndarray) -> np.ndarray:
        """RAS+ mm [..., 3] to voxels of the grid."""
        return (np.asarray(points_mm, np.float64) - self.origin_mm) / self.spacing_mm

    def to_world(self, points_vox: np.ndarray) -> np.ndarray:
        """Voxels of the grid [..., 3] to RAS+ mm."""
        return np.asarray(points_vox, np.float64) * self.spacing_mm + self.origin_mm

    def contains(self, points_mm: np.ndarray, *, margin_mm: float = 0.0) -> np.ndarray:
        """[...] bool: whether the point lies in one of the grid's voxels, or so near to them."""
        voxels, room = self.to_voxels(points_mm), 0.5 + margin_mm / self.spacing_mm
        return np.all((voxels >= -room) & (voxels <= self.side - 1 + room), axis=-1)


def centre_grid(
    shape: tuple[int, int, int], affine: np.ndarray, *, side: int, spacing_mm: float
) -> Grid:
    """The grid whose centre is the centre of a volume, whatever its axes."""
    centre = apply_affine(affine, (np.asarray(shape, np.float64) - 1) / 2)
    return Grid(side, spacing_mm, centre - spacing_mm * (side - 1) / 2)
