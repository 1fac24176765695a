"""A detector: what a network's outputs mean, as pure functions, as optax made an optimizer some.

Whoever trains, evaluates or exports one calls these and never asks which it is.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fetal_jax.examples import Examples


class LossSum(NamedTuple):
    """One loss over a batch: each is divided by its own count, then weighted and added up.

    Sum and count are scalars and add up over devices; the count does not depend on the parameters.
    """

    total: jax.Array
    count: jax.Array
    weight: float = 1.0


class Found(NamedTuple):
    """Landmarks in voxels of the grid, how sure the network seems of each, and what was asked for.

    Where the examples have their points, also what `metrics.local_accuracy` says of each; where
    they name a landmark to be shown, its map.
    """

    points_vox: jax.Array  # [B, L, 3]
    argmax_vox: jax.Array  # [B, L, 3]
    mass: jax.Array  # [B, L] in [0, 1], for `calibration.calibrate`
    local_mm: jax.Array | None = None  # [B, L, R]
    local_guess_mm: jax.Array | None = None  # [B, L, R]
    map: jax.Array | None = None  # [B, D, H, W], its highest value is 1
    evidence: jax.Array | None = None  # [B, L, F], of `visibility_model.gather_evidence`


class Detector(NamedTuple):
    """Four things that belong together.

    init: key -> parameters.
    sum_losses: (parameters, examples) -> {name: LossSum}.
    find: (parameters, examples) -> Found.
    title: what tables call it.
    """

    init: Callable[[jax.Array], dict]
    sum_losses: Callable[[dict, Examples], dict[str, LossSum]]
    find: Callable[[dict, Examples], Found]
    title: str


def init_params(key: jax.Array, *, model: nn.Module) -> dict:
    """Fresh parameters of a network; they do not depend on the size of its input. jit it."""
    side = 2 ** len(model.widths)
    return model.init(key, jnp.zeros((1, side, side, side, 1)))


def apply_model(params: dict, volumes: jax.Array, *, model: nn.Module) -> NamedTuple:
    """The network's outputs, a tree, for volumes [B, D, H, W]."""
    return model.apply(params, volumes[..., None])


def choose_counted(examples: Examples, *, on_completed: bool) -> jax.Array:
    """[B, L] bool, the landmarks to train on; `on_completed`: those that cannot be seen as well."""
    return examples.present if on_completed else examples.visible


def find_each(
    outputs: jax.Array,
    examples: Examples,
    *,
    find_one: Callable,
    score_one: Callable,
    show_one: Callable,
) -> Found:
    """`Found` of outputs [B, L, ...], from functions of one landmark's.

    Args:
      find_one: output -> Found of one landmark.
      score_one: (output, target_vox [3]) -> `metrics.local_accuracy`.
      show_one: output -> map [D, H, W].
    """
    found = jax.vmap(jax.vmap(find_one))(outputs)
    if examples.points_vox is not None:
        local_mm, guess_mm = jax.vmap(jax.vmap(score_one))(outputs, examples.points_vox)
        found = found._replace(local_mm=local_mm, local_guess_mm=guess_mm)
    if examples.shown is not None:
        chosen = jax.vmap(lambda out, index: out[index])(outputs, examples.shown)
        found = found._replace(map=jax.vmap(show_one)(chosen))
    return found


def bind_model(model: nn.Module) -> tuple[Callable, Callable]:
    """`init_params` and `apply_model` of a network."""
    return partial(init_params, model=model), partial(apply_model, model=model)
