"""The study's network: a 3D residual U-Net that paints one map of logits for each landmark."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fetal_jax.models import conv3d as ops

_kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
# each output voxel sees one of the eight offsets of [C, 8, F]
_up_kernel_init = nn.initializers.variance_scaling(
    2.0, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)
)


class MapOutputs(NamedTuple):
    """What a network that paints maps says; another output is another field."""

    logits: jax.Array  # [B, L, D, H, W] float32


def bound_logits(logits: jax.Array, share: float) -> jax.Array:
    """c tanh(z / c) of maps [..., D, H, W], with c = `share` · ln(D H W); 0: as they are.

    A voxel at c among others at 0 holds e^c of e^c + N: no mass to speak of while c is far below
    ln N. So no single voxel takes a map before the others have been turned down, which a distance
    penalty would otherwise reward; and a map can still be sharp while 2 c is far above ln N.
    """
    if not share:
        return logits
    cap = share * math.log(math.prod(logits.shape[-3:]))
    return cap * jnp.tanh(logits / cap)


class Conv3D(nn.Module):
    """Convolution of size K, stride 1, that keeps the size: [B, D, H, W, C] to [B, D, H, W, F]."""

    features: int
    size: int = 3
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        shape = (self.size,) * 3 + (x.shape[-1], self.features)
        y = ops.conv3d(x, self.param("kernel", _kernel_init, shape).astype(x.dtype))
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            # in float32: the gradient of a bias is a sum over all voxels
            y = (y.astype(jnp.float32) + bias.reshape(1, 1, 1, 1, -1)).astype(x.dtype)
        return y


class Norm(nn.Module):
    """Group norm over space: `groups` 1 normalises an example as a whole, `groups` C each channel.

    The sums are taken in float32. No running statistics, so it is the same on one device and on
    many.
    """

    groups: int

    @nn.compact
    def __call__(self, x):
        b, c = x.shape[0], x.shape[-1]
        groups = c if self.groups == 0 else self.groups
        if c % groups:
            raise ValueError(f"expected a number of groups that divides {c} channels, got {groups}")
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        flat = x.reshape(b, -1, c)
        n = flat.shape[1] * (c // groups)

        def per_group(sums):  # [B, C], of the voxels: of the group too
            sums = sums.reshape(b, groups, c // groups).sum(-1)
            return jnp.repeat(sums, c // groups, axis=-1)

        total, squares = map(per_group, ops.sum_voxels(flat))
        mean = total / n
        variance = jnp.maximum(squares / n - mean * mean, 0.0)
        gain = scale.reshape(1, c) * jax.lax.rsqrt(variance + 1e-5)  # [B, C]
        offset = bias.reshape(1, c) - mean * gain
        # in float32 and flat: the gradients of gain and offset are sums over all voxels, which are
        # slow over three axes
        y = flat.astype(jnp.float32) * gain[:, None] + offset[:, None]
        return y.astype(x.dtype).reshape(x.shape)


class ResidualBlock(nn.Module):
    """Two pre-activated 3x3x3 convolutions beside a shortcut convolution (He et al. 2016)."""

    features: int
    groups: int
    shortcut_size: int
    activate_first: bool = True

    @nn.compact
    def __call__(self, x):
        y = x
        if self.activate_first:
            y = nn.leaky_relu(Norm(self.groups)(y))
        y = Conv3D(self.features, bias=False)(y)
        y = nn.leaky_relu(Norm(self.groups)(y))
        y = Conv3D(self.features)(y)
        if self.shortcut_size or x.shape[-1] != self.features:
            x = Conv3D(self.features, self.shortcut_size or 1, bias=False)(x)
        return x + y


class ResidualUNet(nn.Module):
    """The encoder and decoder that `ResUNet3D` and `RPN3D` share.

    Attributes:
      landmarks: L, the number of landmarks of the output.
      widths: channels at each level, finest first; one max pool lies between two levels, so the
        sides must divide by 2^(levels - 1). The study has (32, 64, 128, 256, 512).
      groups: groups of the group norm; 1 as in the study, 0 for one a channel (instance norm).
      shortcut_size: kernel size of the residual path, 3 or 1; 0 for the identity where it fits.
      remat: keep only what goes into each block, and compute the block again for its gradient: less
        memory for a third more time.
      dtype: of the activations; parameters and outputs stay float32.
    """

    landmarks: int
    widths: Sequence[int] = (32, 64, 128, 256, 512)
    groups: int = 1
    shortcut_size: int = 3
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def extract(self, x: jax.Array, finest: int = 0) -> jax.Array:
        """[B, D, H, W, 1] to the features [B, D/2^n, H/2^n, W/2^n, C] of level n = `finest`."""
        factor = 2 ** (len(self.widths) - 1)
        if x.ndim != 5 or x.shape[-1] != 1 or any(n % factor for n in x.shape[1:4]):
            raise ValueError(
                f"expected volumes [B, D, H, W, 1], sides a multiple of {factor}, got {x.shape}"
            )
        x = x.astype(self.dtype)
        skips = []
        for level, width in enumerate(self.widths):
            if level:
                x = ops.max_pool(x)
            x = self._block(width, activate_first=level > 0, name=f"down{level}")(x)
            skips.append(x)
        for level in reversed(range(finest, len(self.widths) - 1)):
            width = self.widths[level]
            kernel = self.param(f"up{level}_kernel", _up_kernel_init, (x.shape[-1], 8, width))
            x = ops.upsample(x, kernel.astype(x.dtype))
            x = jnp.concatenate([skips[level], x], axis=-1)
            x = self._block(width, name=f"merge{level}")(x)
        return nn.leaky_relu(Norm(self.groups, name="norm_out")(x))

    def _block(self, width, *, activate_first=True, name):
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        return block(width, self.groups, self.shortcut_size, activate_first, name=name)


class ResUNet3D(ResidualUNet):
    """Residual U-Net: [B, D, H, W, 1] intensities in [0, 1] to `MapOutputs`.

    Attributes:
      logits_bias: initial bias of the logits.
      logits_cap: share of `bound_logits`.
      The others: see `ResidualUNet`.
    """

    logits_bias: float = 0.0
    logits_cap: float = 0.0

    @nn.compact
    def __call__(self, x) -> MapOutputs:
        x = self.extract(x)
        # landmarks first: a map in one piece makes the loss six times faster on a CPU
        kernel = self.param("logits_kernel", _kernel_init, (x.shape[-1], self.landmarks))
        start = nn.initializers.constant(self.logits_bias)
        bias = self.param("logits_bias", start, (self.landmarks,))
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        logits = jnp.einsum("bnc,cl->bln", flat, kernel) + bias.reshape(1, -1, 1)
        logits = logits.reshape(*logits.shape[:2], *x.shape[1:4])
        return MapOutputs(bound_logits(logits, self.logits_cap))
