"""The frame of a face: the similarity that carries a mean shape onto landmarks that were found.

Points are [L, 3] mm, RAS+; a weight of 0 leaves a point out, whatever stands in its place. Pure,
for `jax.vmap`; every length of a frame is in millimetres of a face of mean size.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DRAWS, ROUNDS = 300, 8  # of sets of four points, and of reweighting
LEAST_SINE = 0.1  # of the narrowest extent of a set of points to its widest: less is a line
MIRROR = np.array([-1.0, 1.0, 1.0])
MEAN_ROUNDS = 20  # of Procrustes' alternation; it has settled after a few
BLOCK = 64  # cases are filled up to a multiple of it: a program for many numbers of them


class Similarity(NamedTuple):
    """p ↦ scale · rotation p + shift."""

    scale: jax.Array  # []
    rotation: jax.Array  # [3, 3], det +1: left and right never change places
    shift: jax.Array  # [3] mm


class FrameFit(NamedTuple):
    """A frame, and how much of what was found agrees with it."""

    similarity: Similarity  # frame mm -> the points' mm
    agreeing: jax.Array  # [] weight of the points within the tolerance, as a share of all
    residual_mm: jax.Array  # [] median over the weights, in mm of the frame
    likeness: jax.Array  # [] how sure the points are and how near to their places, 0 to 1


def carry_points(similarity: Similarity, points: jax.Array) -> jax.Array:
    """Points [..., 3] carried by a similarity."""
    turned = jnp.einsum("ij,...j->...i", similarity.rotation, points, precision="highest")
    return similarity.scale * turned + jnp.broadcast_to(similarity.shift, points.shape)


def invert(similarity: Similarity) -> Similarity:
    """The similarity that undoes this one."""
    back = similarity.rotation.T
    shift = -jnp.matmul(back, similarity.shift, precision="highest") / similarity.scale
    return Similarity(1 / similarity.scale, back, shift)


def fit_similarity(source: jax.Array, target: jax.Array, weights: jax.Array) -> Similarity:
    """The similarity of least weighted squares from points [L, 3] onto others.

    The rotation is Horn's quaternion (1987, J. Opt. Soc. Am. A 4:629), which is never a reflection;
    the scale is Umeyama's (1991, IEEE Trans. Pattern Anal. 13:376), that of least squares.

    Args:
      weights: [L], 0 or more; three points that are not on a line must have some, else the rotation
        is any.
    """
    w = weights / jnp.maximum(jnp.sum(weights), 1e-30)
    source, target = (jnp.where(w[:, None] > 0, p, 0.0) for p in (source, target))
    centre, onto = (jnp.einsum("l,lc->c", w, p, precision="highest") for p in (source, target))
    a, b = source - centre[None], target - onto[None]
    s = jnp.einsum("l,li,lj->ij", w, a, b, precision="highest")
    rotation = _rotation_of(s)
    spread = jnp.einsum("l,li,li->", w, a, a, precision="highest")
    scale = jnp.maximum(jnp.sum(rotation * s.T) / jnp.maximum(spread, 1e-12), 1e-6)
    turned = jnp.matmul(rotation, centre, precision="highest")
    return Similarity(scale, rotation, onto - scale * turned)


def _rotation_of(s: jax.Array) -> jax.Array:
    """The rotation R of the largest trace(R s), s [3, 3] a covariance of source and target."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = s
    n = jnp.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, yy - xx - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, zz - xx - yy],
        ]
    )
    # The eigenvector of the largest eigenvalue, by squaring: no library that a file for another
    # machine would have to name. All eigenvalues are made positive first.
    n = n + (jnp.sqrt(jnp.sum(n * n)) + 1e-30) * jnp.eye(4)

    def square(_, m):
        m = jnp.matmul(m, m, precision="highest")
        return m / jnp.trace(m)

    m = jax.lax.fori_loop(0, 24, square, n / jnp.trace(n))
    # every column is a multiple of it; the longest has the most digits
    q = m[:, jnp.argmax(jnp.diagonal(m))]
    w, x, y, z = q / jnp.sqrt(jnp.maximum(jnp.sum(q * q), 1e-30))
    return jnp.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def fit_frame(
    shape: jax.Array, found: jax.Array, weights: jax.Array, *, tolerance_mm: jax.Array | float
) -> FrameFit:
    """The similarity from a mean shape onto points of which up to half may be wrong.

    Random sets of four points are fitted, by the weights' chances; the fit with the least weighted
    median residual is refined by weights that fall with the residual (Geman and McClure 1987, Bull.
    Int. Stat. Inst. 52:5). With three points or fewer there is nothing to choose among: it is the
    fit of least squares.

    Args:
      shape: [L, 3] mm of the frame.
      found: [L, 3] mm of the world.
      weights: [L] confidence in [0, 1]; 0 where nothing was found.
      tolerance_mm: of the frame; a point that lies so near to its place agrees, and one that lies
        just so near is like a face by half of its weight (Cauchy's function of the distance).
    """
    shape, found, weights = (jnp.asarray(given) for given in (shape, found, weights))
    usable = (weights > 0) & jnp.isfinite(found).all(axis=-1)
    weights = jnp.where(usable, weights, 0.0)
    found = jnp.where(usable[:, None], found, 0.0)
    # Gumbel's trick draws without replacement; always the same draws, so that a scan has one frame
    luck = jax.random.gumbel(jax.random.key(0), (DRAWS, len(shape)))
    chance = jnp.log(jnp.maximum(weights, 1e-9))
    _, drawn = jax.lax.top_k(luck + chance[None], min(4, len(shape)))

    def measure(similarity: Similarity) -> jax.Array:
        """[L] distance of each point from its place, in mm of the frame."""
        away = carry_points(similarity, shape) - found
        return jnp.sqrt(jnp.sum(away * away, axis=-1)) / similarity.scale

    def try_draw(chosen: jax.Array) -> tuple[Similarity, jax.Array]:
        similarity = fit_similarity(shape[chosen], found[chosen], weights[chosen])
        return similarity, _weighted_median(measure(similarity), weights)

    tried, score = jax.vmap(try_draw)(drawn)
    best = jax.tree.map(lambda each: each[jnp.nanargmin(score)], tried)

    def refine(_, similarity: Similarity) -> Similarity:
        away = measure(similarity) / tolerance_mm
        return fit_similarity(shape, found, weights / jnp.square(1.0 + away * away))

    refined = jax.lax.fori_loop(0, ROUNDS, refine, best)
    plain = fit_similarity(shape, found, weights)
    few = jnp.sum(usable) <= 3
    similarity = jax.tree.map(lambda a, b: jnp.where(few, a, b), plain, refined)
    away = measure(similarity)
    agreeing = jnp.sum(jnp.where(away <= tolerance_mm, weights, 0.0))
    share = agreeing / jnp.maximum(jnp.sum(weights), 1e-30)
    likeness = jnp.mean(weights / (1.0 + jnp.square(away / tolerance_mm)))
    return FrameFit(similarity, share, _weighted_median(away, weights), likeness)


def _weighted_median(values: jax.Array, weights: jax.Array) -> jax.Array:
    """The least value that, with those below it, has half of the weight."""
    order = jnp.argsort(values)
    share = jnp.cumsum(weights[order])
    return values[order][jnp.argmax(share >= 0.5 * share[-1])]


def find_flatness(points: np.ndarray) -> float:
    """How far points [N, 3] are from lying on a line: their second extent to the first, 0 to 1."""
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        return 0.0
    extents = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(extents[1] / max(extents[0], 1e-12))


def fit_mean_shape(
    points_mm: np.ndarray, mirror_index: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean shape of cases, by generalised Procrustes (Gower 1975, Psychometrika 40:33).

    Args:
      points_mm: [N, L, 3] RAS+ mm, NaN where absent; each landmark is in some case.
      mirror_index: [L], which landmark is each one's on the other side, itself in the midline; the
        shape is then that of the cases and of their mirror images together.

    Returns:
      The shape [L, 3] in mm of a case of mean size, its mean at 0, along its principal axes, so
      that a box round it is tight, in the order that is nearest to Right, Anterior, Superior of the
      cases in the mean; mirror pairs are symmetric about x = 0. And the cases in its frame,
      [N, L, 3], NaN where absent.

    Raises:
      ValueError: fewer than three landmarks, a landmark that is in no case, or a shape on a line.
    """
    points_mm = np.asarray(points_mm, np.float64)
    n, count, _ = points_mm.shape
    if count < 3:
        raise ValueError(f"expected three landmarks or more for a frame, got {count}")
    every = points_mm
    if mirror_index is not None:
        every = np.concatenate([points_mm, points_mm[:, mirror_index] * MIRROR])
    known = np.isfinite(every).all(axis=-1)
    if not known.any(axis=0).all():
        raise ValueError(
            "expected each landmark in some case for a frame, got none with landmark "
            f"{int(np.argmin(known.any(axis=0))) + 1}"
        )
    posed = known.sum(axis=1) >= 3
    known &= posed[:, None]
    # about their own middles, for float32 has no digits to spare
    every = np.where(known[..., None], every, 0.0)
    middles = every.sum(axis=1) / np.maximum(known.sum(axis=1), 1)[:, None]
    every = np.where(known[..., None], every - middles[:, None], 0.0).astype(np.float32)
    first = int(np.argmax(known.sum(axis=1)))
    mean, settled = every[first].astype(np.float64), known[first]
    for _ in range(MEAN_ROUNDS):
        fits, carried = _carry_all(every, mean, known & settled)
        mean = (carried * known[..., None]).sum(axis=0) / np.maximum(known.sum(axis=0), 1)[:, None]
        settled = known.any(axis=0)
        mean -= mean.mean(axis=0)
        mean /= np.exp(np.mean(np.log(fits.scale[posed])))  # else it shrinks to a point
    fits, _ = _carry_all(every, mean, known)
    mean = mean @ _mean_rotation(fits.rotation[posed])
    if mirror_index is not None:
        mean = 0.5 * (mean + mean[mirror_index] * MIRROR)
    mean = mean @ _find_axes(mean)
    if (flatness := find_flatness(mean)) < LEAST_SINE:
        raise ValueError(
            "expected landmarks that are not on a line for a frame, got a shape whose width is "
            f"{flatness:.2f} of its length"
        )
    _, carried = _carry_all(every, mean, known)
    return mean, np.where(known[..., None], carried, np.nan)[:n]


@jax.jit
def _fit_all(every, mean, weights):
    fits = jax.vmap(fit_similarity, in_axes=(0, None, 0))(every, mean, weights)
    return fits, jax.vmap(carry_points)(fits, every)


def _carry_all(every, mean, known) -> tuple[Similarity, np.ndarray]:
    """The similarities of all cases onto a shape, and the cases carried, float64."""
    n = len(every)
    room = [(0, -n % BLOCK), (0, 0), (0, 0)]
    weights = np.pad(known.astype(np.float32), room[:2])
    found = _fit_all(np.pad(every, room), mean.astype(np.float32), weights)
    return jax.tree.map(lambda a: np.asarray(a, np.float64)[:n], found)


def _find_axes(mean: np.ndarray) -> np.ndarray:
    """[3, 3], columns: the principal axes of a shape, in the order nearest to x, y, z; det +1.

    Of a shape that is symmetric about x = 0 the first is x.
    """
    _, axes = np.linalg.eigh(mean.T @ mean)
    choices = [
        axes[:, list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    proper = [choice for choice in choices if np.linalg.det(choice) > 0]
    return max(proper, key=np.trace)


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """The rotation nearest to the mean of rotations [N, 3, 3]; of none in particular, any."""
    u, _, vt = np.linalg.svd(rotations.mean(axis=0))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
