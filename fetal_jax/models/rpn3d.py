"""An RPN-style detector, cubic boxes for maps: our reconstruction of the study's baseline."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fetal_jax.models.resunet3d import Conv3D, ResidualUNet

PRIOR_SCORE = 0.01  # a cell's chance of holding the landmark, before anything is learnt


class CellOutputs(NamedTuple):
    """What a network that proposes boxes says of each of its M cells."""

    cells: jax.Array  # [B, L, M, 5] float32: score, shift in anchor sides (3), log size


class RPN3D(ResidualUNet):
    """Volumes [B, D, H, W, 1] to `CellOutputs`.

    The decoder stops at the level of the cells, so that a cell still sees the whole face.

    Attributes:
      stride: voxels between cells, a power of two below 2^levels.
      The others: see `ResidualUNet`.
    """

    stride: int = 4

    @nn.compact
    def __call__(self, x) -> CellOutputs:
        cell_level = self.stride.bit_length() - 1
        if 2**cell_level != self.stride or cell_level >= len(self.widths):
            largest = 2 ** (len(self.widths) - 1)
            raise ValueError(
                f"expected a stride of 1, 2, 4, ... up to {largest}, got {self.stride}"
            )
        x = self.extract(x, cell_level)
        x = nn.leaky_relu(Conv3D(x.shape[-1], name="head")(x))
        # small, so that every box starts as its anchor
        kernel = self.param(
            "outputs_kernel",
            nn.initializers.normal(0.01),
            (x.shape[-1], self.landmarks * 5),
        )
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        out = jnp.matmul(flat, kernel).reshape(*flat.shape[:2], self.landmarks, 5)
        bias = self.param("outputs_bias", _score_bias, (self.landmarks, 5))
        return CellOutputs(jnp.swapaxes(out + bias[None, None], 1, 2))


def _score_bias(key, shape, dtype=jnp.float32):
    del key
    start = -math.log(1 / PRIOR_SCORE - 1)
    return jnp.zeros(shape, dtype).at[:, 0].set(start)
