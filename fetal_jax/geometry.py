"""Affines and grids: where voxels and RAS+ millimetres meet. numpy, float64."""

from typing import NamedTuple, TypeVar

import numpy as np

Cube = TypeVar("Cube")  # an array of numpy or of JAX

# Signs of R, A, S in LPS, the axes of ITK and of Slicer's files; its own inverse.
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] carried by an affine [4, 4]."""
    points = np.asarray(points, np.float64)
    if affine.shape != (4, 4) or points.shape[-1:] != (3,):
        raise ValueError(
            f"expected an affine [4, 4] and points [..., 3], got {affine.shape} and {points.shape}"
        )
    return points @ affine[:3, :3].T + affine[:3, 3]


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Lengths [3] in mm of a voxel's sides, along each array axis of an affine [4, 4]."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def world_bounds(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner [3], RAS+ mm, of the box that holds all voxels of a volume.

    Voxels count with their extent, half a voxel beyond the outer centres.
    """
    edges = [(-0.5, n - 0.5) for n in shape]
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(8, 3)
    world = apply_affine(affine, corners)
    return world.min(axis=0), world.max(axis=0)


class Grid(NamedTuple):
    """Where the voxels of an array lie: cubes of one size, in any pose.

    shape: D, H, W.
    affine: [4, 4] float64, from voxels to RAS+ mm; its columns are at right angles and of one
      length. The default grid's axes run Right, Anterior, Superior.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> float:
        """Side of a voxel.

        Raises:
          ValueError: the voxels are no cubes.
        """
        sizes = voxel_sizes(self.affine)
        if not np.allclose(sizes, sizes[0], rtol=1e-6, atol=0.0):
            raise ValueError(f"expected a grid of cubes, got voxels of {sizes} mm")
        return float(sizes[0])

    def to_voxels(self, points_mm: np.ndarray) -> np.ndarray:
        """RAS+ mm [..., 3] to voxels of the grid."""
        offset = np.asarray(points_mm, np.float64) - self.affine[:3, 3]
        # a solve and not an inverse: where the axes are the world's it is a plain division
        return np.linalg.solve(self.affine[:3, :3], offset[..., None])[..., 0]

    def to_world(self, points_vox: np.ndarray) -> np.ndarray:
        """Voxels of the grid [..., 3] to RAS+ mm."""
        return apply_affine(self.affine, points_vox)

    def contains(self, points_mm: np.ndarray, *, margin_mm: float = 0.0) -> np.ndarray:
        """[...] bool: whether the point lies in one of the grid's voxels, or so near to them."""
        voxels, room = self.to_voxels(points_mm), 0.5 + margin_mm / self.spacing_mm
        return np.all((voxels >= -room) & (voxels <= np.array(self.shape) - 1 + room), axis=-1)


def turn_grid(grid: Grid, turn: np.ndarray) -> Grid:
    """A grid turned about its middle: a rotation [3, 3] of its own axes."""
    middle = (np.array(grid.shape) - 1) / 2
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, middle - turn @ middle
    return Grid(grid.shape, grid.affine @ motion)


def turn_cube(cube: Cube, turn: np.ndarray) -> Cube:
    """A cube [S, S, S] as it lies on `turn_grid` of its grid, for a turn by quarters."""
    signs = np.rint(turn).astype(int)
    along = np.abs(signs).argmax(axis=1)  # the axis of the turned cube along which each one runs
    flipped = cube[tuple(slice(None, None, signs[axis, along[axis]]) for axis in range(3))]
    return flipped.transpose(*(int(axis) for axis in np.argsort(along)))


def align_grid(shape: tuple[int, int, int], spacing_mm: float, origin_mm: np.ndarray) -> Grid:
    """The grid along the world's axes whose first voxel's centre lies at `origin_mm` [3], RAS+."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = origin_mm
    return Grid(tuple(shape), affine)


def centre_grid(
    shape: tuple[int, int, int], affine: np.ndarray, *, side: int, spacing_mm: float
) -> Grid:
    """The cube along the world's axes whose centre is that of a volume, whatever its axes."""
    centre = apply_affine(affine, (np.asarray(shape, np.float64) - 1) / 2)
    return align_grid((side,) * 3, spacing_mm, centre - spacing_mm * (side - 1) / 2)


def pad_grid(grid: Grid, margin: int) -> Grid:
    """The grid with so many more voxels on each of its sides; those of before stay in place."""
    affine = np.array(grid.affine, np.float64)
    affine[:3, 3] = apply_affine(affine, np.full(3, -float(margin)))
    return Grid(tuple(side + 2 * margin for side in grid.shape), affine)
