"""Cases on their grids, in memory: what training, evaluation and the report look at."""

from dataclasses import dataclass, fields

import numpy as np

from fetal_jax import geometry
from fetal_jax.data.case_table import Case


@dataclass(frozen=True)
class PreparedCases:
    """Cases on the grid, in memory.

    volumes: [N, D, H, W] float16 in [0, 1].
    points_mm: [N, L, 3] float64 RAS+ mm, NaN where absent.
    points_vox: [N, L, 3] float32 grid voxels, 0 where absent.
    present, visible: [N, L] bool.
    spread_mm: [N, L] how far annotators are apart, NaN where fewer than two set the point.
    """

    cases: tuple[Case, ...]
    grids: tuple[geometry.Grid, ...]
    volumes: np.ndarray
    points_mm: np.ndarray
    points_vox: np.ndarray
    present: np.ndarray
    visible: np.ndarray
    spread_mm: np.ndarray

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def subjects(self) -> list[str]:
        return [case.subject for case in self.cases]

    def select(self, indices) -> "PreparedCases":
        """The cases at `indices`, in that order."""
        indices = np.asarray(indices, int)
        return PreparedCases(
            **{
                field.name: value[indices]
                if isinstance(value := getattr(self, field.name), np.ndarray)
                else tuple(value[i] for i in indices)
                for field in fields(self)
            }
        )

    def join(self, *others: "PreparedCases") -> "PreparedCases":
        """These cases, then those of the others."""
        every = (self, *others)
        return PreparedCases(
            **{
                field.name: np.concatenate([getattr(one, field.name) for one in every])
                if isinstance(getattr(self, field.name), np.ndarray)
                else tuple(item for one in every for item in getattr(one, field.name))
                for field in fields(self)
            }
        )

    def to_world(self, points_vox: np.ndarray) -> np.ndarray:
        """[N, L, 3] voxels of each case's own grid to RAS+ mm."""
        return np.stack([g.to_world(p) for g, p in zip(self.grids, points_vox, strict=True)])

    def mean_positions(self) -> np.ndarray:
        """[L, 3], mm from the grid's first voxel: where each landmark is on average."""
        counted = self.present[..., None]
        sums = np.sum(np.where(counted, self.points_vox, 0.0), axis=0, dtype=np.float64)
        centre = (self.grids[0].side - 1) / 2
        means = np.where(counted.any(axis=0), sums / np.maximum(counted.sum(axis=0), 1), centre)
        return means * self.grids[0].spacing_mm
