"""The one batch: what the loader makes, augmentation changes, and a detector looks at."""

from typing import NamedTuple

import jax
import numpy as np


class Examples(NamedTuple):
    """B examples on their grids, with L landmarks; what is not known is None.

    Under `jax.vmap` it is one example: the same fields without their B.
    """

    volumes: jax.Array  # [B, D, H, W], intensities in [0, 1]
    affines: jax.Array | None = None  # [B, 4, 4], voxels of each example's grid -> RAS+ mm
    points_vox: jax.Array | None = None  # [B, L, 3] voxels, any finite number where absent
    present: jax.Array | None = None  # [B, L] bool: the annotator set it
    visible: jax.Array | None = None  # [B, L] bool: present, and to be seen in the volume
    places: jax.Array | None = None  # [B] int32, the example's place in the global batch
    shown: jax.Array | None = None  # [B] int32, the landmark whose map is asked for


def ask_all(volumes: np.ndarray, points_vox: np.ndarray) -> Examples:
    """All that a detector can say of volumes whose points are known.

    Who trains, evaluates or reports asks the same, also where less would do: a network's program
    takes seconds to compile, and longer than what it says too much.

    Args:
      volumes: [B, D, H, W], or what gives an array when it is indexed with some of B.
      points_vox: [B, L, 3] voxels; NaN or any number where absent.
    """
    shown = np.zeros(len(points_vox), np.int32)
    return Examples(volumes, points_vox=np.nan_to_num(points_vox).astype(np.float32), shown=shown)
