"""One step of training: pure, for one device's share of a batch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fetal_jax.augment import Augmentation
from fetal_jax.detectors.detector import LossSum
from fetal_jax.examples import Examples
from fetal_jax.training import parallel


class TrainState(NamedTuple):
    """All that changes in training."""

    step: jax.Array  # int32, steps done
    params: dict
    opt_state: optax.OptState


def make_optimizer(
    *,
    lr: float,
    steps: int,
    warmup_steps: int,
    clip_norm: float,
    weight_decay: float,
    decay: str,
    slower: Callable[[dict], dict] | None = None,
    slower_share: float = 1.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam with clipping and a linear warm-up, then a cosine to 1 % ("cosine") or "constant".

    Args:
      slower: parameters -> a tree of bool, which of them learn at `slower_share` of the rate.

    Returns:
      The transformation, and the learning rate as a function of the step.
    """
    warmup = min(warmup_steps, steps // 2)
    if decay == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(0.0, lr, warmup, steps, 0.01 * lr)
    elif decay == "constant":
        rise = optax.linear_schedule(0.0, lr, warmup)
        schedule = optax.join_schedules([rise, optax.constant_schedule(lr)], [warmup])
    else:
        raise ValueError(f"expected a decay 'cosine' or 'constant', got {decay!r}")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    adam = optax.adamw(schedule, weight_decay=weight_decay)
    if slower is None:
        return optax.chain(clip, adam), schedule
    return optax.chain(clip, adam, optax.masked(optax.scale(slower_share), slower)), schedule


def create_state(
    key: jax.Array, *, init: Callable[[jax.Array], dict], optimizer: optax.GradientTransformation
) -> TrainState:
    """Fresh parameters of a detector's `init`; jit it."""
    params = init(key)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def train_step(
    state: TrainState,
    key: jax.Array,
    examples: Examples,
    *,
    sum_losses: Callable[[dict, Examples], dict[str, LossSum]],
    augment: Augmentation | None,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on one device's share of a batch, inside `parallel.map_step`.

    Each loss is a mean over what it counts in the whole batch: sums and counts are added over the
    devices and divided once, for devices see different numbers of landmarks.

    Args:
      state: the same on every device.
      key: the run's; an example's own is made from it by the step and its place in the batch.
      examples: this device's.
      sum_losses: of a `Detector`.
      augment: (key, example) -> example, or None.
      optimizer: as of `make_optimizer`.

    Returns:
      The next state, and {"loss", "grad_norm"}; with several losses each as "loss/NAME" too, before
      its weight.
    """
    if augment is not None:
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(examples.places)
        examples = jax.vmap(augment)(keys, examples)

    def measure(params):
        sums = sum_losses(params, examples)
        return {name: each.total for name, each in sums.items()}, sums

    totals, pull_back, sums = jax.vjp(measure, state.params, has_aux=True)
    totals, counts = parallel.psum((totals, {name: each.count for name, each in sums.items()}))
    counts = {name: jnp.maximum(count, 1) for name, count in counts.items()}
    # one backward pass for all: each sum is brought to the first's count, which divides at the end
    common = next(iter(counts.values()))
    shares = {name: each.weight * (common / counts[name]) for name, each in sums.items()}
    (gradient,) = pull_back(shares)
    gradient = jax.tree.map(lambda g: g / common.astype(g.dtype), parallel.psum(gradient))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types, under "strict" an error
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    means = {name: total / counts[name].astype(total.dtype) for name, total in totals.items()}
    loss = sum(sums[name].weight * mean for name, mean in means.items())
    measured = {"loss": loss, "grad_norm": optax.tree.norm(gradient)}
    if len(means) > 1:
        measured |= {f"loss/{name}": mean for name, mean in means.items()}
    return TrainState(state.step + 1, params, opt_state), measured
