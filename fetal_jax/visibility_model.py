"""Whether a landmark can be seen in a scan: a logistic curve over how its map and its place look.

A network that has been trained paints a sharp, high map where it sees a landmark and a wide, low
one where it does not. A few numbers say that, and how bright it is there. The curve is fitted to
them after the training: features of its own would learn the few hidden points by heart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

MASS_RADII_VOX = (1.5, 5.0)
BRIGHT_SIDES_VOX = (5, 9)
# of squares, against the mean cross-entropy: of weights that all landmarks have in common, of what
# each adds of its own, of its own offset; a third or three times as much tell as well on scans that
# no network was trained on
SHRINK_COMMON, SHRINK_OWN, SHRINK_OFFSET = 0.01, 0.01, 0.001


class VisibilityModel(NamedTuple):
    """P(it can be seen) = sigmoid(offset + weights · evidence), for each landmark.

    offsets: [L]; weights: [L, F].
    """

    offsets: np.ndarray
    weights: np.ndarray


def gather_evidence(logits: jax.Array, volume: jax.Array, expected_vox: jax.Array) -> jax.Array:
    """[F] of a landmark: what speaks for its being seen.

    The highest logit; the map's entropy; the logarithm of its mass within MASS_RADII_VOX of its
    peak; the logarithm of how far that lies from where the landmark is expected, in voxels; how
    bright it is in cubes of BRIGHT_SIDES_VOX round either, dark beyond the border.

    Args:
      logits: [D, H, W]; volume: [D, H, W] in [0, 1].
      expected_vox: [3]; outside, the nearest voxel counts.
    """
    shape = logits.shape
    log_p = jax.nn.log_softmax(logits, axis=(0, 1, 2))
    p = jnp.exp(log_p)
    found = jnp.stack(jnp.unravel_index(jnp.argmax(logits), shape))
    limit = jnp.array(shape) - 1
    expected = jnp.clip(jnp.round(expected_vox).astype(jnp.int32), 0, limit)
    offsets = [
        (jnp.arange(n) - found[axis]).astype(jnp.float32).reshape(_along(axis))
        for axis, n in enumerate(shape)
    ]
    squared = sum(jnp.square(jnp.broadcast_to(offset, shape)) for offset in offsets)
    mass = [jnp.sum(jnp.where(squared <= r**2, p, 0.0)) for r in MASS_RADII_VOX]
    apart = jnp.sqrt(jnp.sum(jnp.square((found - expected).astype(jnp.float32))))
    bright = [_mean_round(volume, at, n) for n in BRIGHT_SIDES_VOX for at in (found, expected)]
    return jnp.stack(
        [
            jnp.max(logits),
            -jnp.sum(p * log_p),
            *(jnp.log(m + 1e-6) for m in mass),
            jnp.log1p(apart),
            *bright,
        ]
    )


def _along(axis: int) -> list[int]:
    return [-1 if a == axis else 1 for a in range(3)]


def _mean_round(volume: jax.Array, voxel: jax.Array, size: int) -> jax.Array:
    """Mean over a cube of an odd size round a voxel [3]; beyond the border it is dark."""
    padded = jnp.pad(volume, size // 2)
    return jnp.mean(jax.lax.dynamic_slice(padded, tuple(voxel), [size] * 3))


def fit_visibility(
    evidence: np.ndarray, visible: np.ndarray, judged: np.ndarray
) -> VisibilityModel:
    """The curves of least cross-entropy, weights shrunk towards those of all landmarks, and to 0.

    Args:
      evidence: [N, L, F]; visible: [N, L] bool.
      judged: [N, L] bool, of which landmarks it is known; of both kinds at least one.
    """
    x, y = np.asarray(evidence, np.float64), np.asarray(visible, np.float64)
    _, count, size = x.shape
    known = x[judged]
    mean, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    x = (x - mean) / scale
    n = judged.sum()
    shrink_common = np.append(np.full(size, SHRINK_COMMON), 0.0)
    shrink_own = np.append(np.full(size, SHRINK_OWN), SHRINK_OFFSET)

    def unpack(p):
        common, own = p[: size + 1], p[size + 1 :].reshape(count, size + 1)
        return common, own

    def measure(p):
        common, own = unpack(p)
        both = common + own  # [L, F + 1], the offset last
        z = (x * both[:, :-1]).sum(axis=-1) + both[:, -1]
        error = np.where(judged, scipy.special.expit(z) - y, 0.0) / n
        loss = np.where(judged, np.logaddexp(0, z) - y * z, 0.0).sum() / n
        loss += (shrink_common * common**2).sum() + (shrink_own * own**2).sum()
        slopes = np.concatenate(
            [(x * error[..., None]).sum(axis=0), error.sum(axis=0)[:, None]], axis=1
        )
        common_slope = slopes.sum(axis=0) + 2 * shrink_common * common
        return loss, np.concatenate([common_slope, (slopes + 2 * shrink_own * own).ravel()])

    start = np.zeros((count + 1) * (size + 1))
    common, own = unpack(scipy.optimize.minimize(measure, start, jac=True, method="L-BFGS-B").x)
    weights = (common + own)[:, :-1] / scale
    return VisibilityModel((common + own)[:, -1] - weights @ mean, weights)


def judge_visibility(model: VisibilityModel, evidence: jax.Array) -> jax.Array:
    """The chance [..., L] that each landmark can be seen, from evidence [..., L, F]."""
    said = jnp.einsum("...lf,lf->...l", evidence, model.weights, precision="highest")
    return jax.nn.sigmoid(said + jnp.broadcast_to(model.offsets, said.shape))
