"""Random elastic deformation: a smooth bijection of one example, its landmarks carried exactly.

A free-form deformation x ↦ x + u(x): each component of u is a uniform cubic B-spline whose control
points stand one spacing apart (Rueckert et al. 1999, IEEE Trans. Med. Imaging 18:712). If none of
their numbers exceeds strain · spacing / K, with K of Choi and Lee (2000, Graphical Models 62:411),
u changes by at most strain · |x - y| between any x and y, both measured by their largest
coordinate. Below 1 this makes x + u(x) a bijection, and its inverse a fixed point.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from fetal_jax.augment import Places, Spatial, Warp

INTERVALS = 3  # between control points along the longest side of a volume
K = 2.479472335  # max over x of Σ |∂₁B + ∂₂B + ∂₃B|, B the spline of one control point
MAX_STRAIN = 0.9  # nearer to 1, float32 does not resolve the inverse
ERROR_VOX = 0.005  # of the inverse, at most


def random_elastic(*, max_strain: float) -> Spatial:
    """A deformation that changes no length by more than a share `max_strain`, 0 to MAX_STRAIN.

    It costs least as the first member of a chain: the last to act is evaluated on the voxels'
    own grid, where the spline is three small matrix products.
    """
    if not 0 <= max_strain <= MAX_STRAIN:
        raise ValueError(f"expected a strain from 0 to {MAX_STRAIN}, got {max_strain}")

    def sample(key, example):
        shape = example.volumes.shape
        if len(shape) != 3:
            raise ValueError(f"expected a volume [D, H, W], got {shape}")
        spacing = (max(shape) - 1) / INTERVALS
        limit = max_strain * spacing / K
        controls = limit * jax.random.uniform(key, (INTERVALS + 3,) * 3 + (3,), minval=-1.0)
        return make_warp(controls, spacing, max_strain), example

    return Spatial(sample)


def make_warp(controls: jax.Array, spacing: float, strain: float) -> Warp:
    """The warp that takes the voxel at x from x + u(x), and a point x + u(x) to x.

    Args:
      controls: [N, N, N, 3] voxels, the control points' numbers, none above strain · spacing / K;
        the first one stands at -spacing along each axis. Far from all of them u is 0.
      spacing: between them, in voxels.
      strain: of the bound, below 1.
    """
    if controls.ndim != 4 or controls.shape[-1] != 3:
        raise ValueError(f"expected control points [N, N, N, 3], got {controls.shape}")
    displace = partial(_displace, controls, spacing)

    def pull(places):
        return [at + by for at, by in zip(places, displace(places), strict=True)]

    return Warp(pull=pull, push=partial(_invert, displace, strain))


def _displace(controls: jax.Array, spacing: float, places: Places) -> jax.Array:
    """u at places that broadcast to a shape, as [3, *shape] voxels."""
    weights = [
        _bspline(jnp.subtract.outer(places[axis] / spacing, jnp.arange(-1.0, n - 1)))
        for axis, n in enumerate(controls.shape[:3])
    ]
    return jnp.einsum("...i,...j,...k,ijkc->c...", *weights, controls, precision="highest")


def _bspline(t: jax.Array) -> jax.Array:
    """The uniform cubic B-spline about 0; its sum over whole steps is 1."""
    t = jnp.abs(t)
    near, far = 2 / 3 - t * t + 0.5 * t**3, jnp.maximum(2.0 - t, 0.0) ** 3 / 6
    return jnp.where(t < 1, near, far)


def _invert(displace: Callable[[Places], jax.Array], strain: float, points: jax.Array) -> jax.Array:
    """The x [L, 3] of which x + u(x) are the points, within ERROR_VOX.

    A round x ↦ points - u(x) brings them nearer by the factor `strain` or more. What is left is at
    most the last round's change / (1 - strain) (Banach).
    """

    def take_round(state):
        x, _ = state
        nearer = points - displace(x.T).T
        return nearer, jnp.max(jnp.abs(nearer - x))

    def is_far(state):
        _, change = state
        return change > ERROR_VOX * (1 - strain)

    return jax.lax.while_loop(is_far, take_round, take_round((points, 0.0)))[0]
