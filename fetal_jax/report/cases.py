"""Which cases a report shows, and all that is shown of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fetal_jax.data.cases import PreparedCases
from fetal_jax.geometry import Grid

WORST = 3


@dataclass(frozen=True)
class ShownCase:
    """One case of L landmarks, on its grid.

    volume_path: the file that it came from.
    volume: [D, H, W] in [0, 1].
    affine: [4, 4], grid voxels to RAS+ mm.
    points_vox, predicted_vox: [L, 3]; points_vox is NaN where absent.
    visible: [L] bool; error_mm: [L], NaN where absent; confidence, radius_mm: [L].
    landmark: index of the one that is shown closely, with its map [D, H, W], whose peak is 1.
    """

    title: str
    name: str
    volume_path: Path
    volume: np.ndarray
    affine: np.ndarray
    spacing_mm: float
    labels: tuple[str, ...]
    points_vox: np.ndarray
    predicted_vox: np.ndarray
    visible: np.ndarray
    error_mm: np.ndarray
    confidence: np.ndarray
    radius_mm: np.ndarray
    landmark: int
    map: np.ndarray

    def to_world(self, points_vox: np.ndarray) -> np.ndarray:
        """[L, 3] grid voxels to RAS+ mm."""
        return points_vox @ self.affine[:3, :3].T + self.affine[:3, 3]


def choose_cases(error_mm: np.ndarray, visible: np.ndarray) -> list[tuple[str, int, int]]:
    """(title, case, its worst visible landmark) of the worst cases and of the median one.

    A case's error is the mean of its visible points; a case without any is not chosen.

    Args:
      error_mm, visible: [N, L].
    """
    kept = np.where(visible, error_mm, 0.0)
    known = np.flatnonzero(visible.any(axis=1))
    means = kept[known].sum(axis=1) / visible[known].sum(axis=1)
    ordered = known[np.argsort(-means, kind="stable")]
    names = ("worst case", "second worst", "third worst")[:WORST]
    chosen = dict(zip(names, ordered, strict=False))
    if len(ordered) > 1:
        chosen["median case"] = ordered[len(ordered) // 2]
    titles: dict[int, list[str]] = {}
    for title, case in chosen.items():
        titles.setdefault(int(case), []).append(title)
    return [
        (", ".join(names), case, int(np.argmax(np.where(visible[case], error_mm[case], -1.0))))
        for case, names in titles.items()
    ]


def show_case(
    prepared: PreparedCases,
    case: int,
    *,
    title: str,
    labels: Sequence[str],
    predicted_mm: np.ndarray,
    confidence: np.ndarray,
    radius_mm: np.ndarray,
    landmark: int,
    grid: Grid,
    volume: np.ndarray,
    map_: np.ndarray,
) -> ShownCase:
    """What the report shows of one of N cases.

    Args:
      prepared: the N cases.
      case: its index.
      title: why it is shown.
      labels: L names.
      predicted_mm: [L, 3] RAS+.
      confidence, radius_mm: [L].
      landmark: index of the landmark that is shown closely.
      grid: that all is shown on.
      volume, map_: [D, H, W] there, the scan and that landmark's map, whose peak is 1.
    """
    there = prepared.present[case]
    points_mm = prepared.points_mm[case]
    return ShownCase(
        title,
        prepared.cases[case].name,
        prepared.cases[case].volume_path,
        volume.astype(np.float32),
        grid.affine,
        grid.spacing_mm,
        tuple(labels),
        np.where(there[:, None], grid.to_voxels(points_mm), np.nan),
        grid.to_voxels(predicted_mm),
        prepared.visible[case],
        np.linalg.norm(predicted_mm - points_mm, axis=-1),
        confidence,
        radius_mm,
        landmark,
        map_,
    )
