"""A network of two outputs, its detector of two losses, and steps that are compiled once for all.

The losses count different things, and each device of four another number of them.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fetal_jax import augment, losses
from fetal_jax.detectors.detector import Detector, LossSum, apply_model, init_params
from fetal_jax.examples import Examples
from fetal_jax.training import parallel, step

SIDE, LANDMARKS, BATCH = 8, 2, 4
# examples with two landmarks to be seen, one, none and two; and those that were completed
VISIBLE = np.array([[True, True], [False, True], [False, False], [True, True]])
PRESENT = VISIBLE | np.array([[False, False], [True, False], [False, True], [False, False]])
SEEN_WEIGHT = 0.5
SGD = optax.sgd(0.1, momentum=0.5)
ADAM, _ = step.make_optimizer(
    lr=1e-2, steps=9, warmup_steps=1, clip_norm=1.0, weight_decay=0.1, decay="cosine"
)


@augment.Spatial
def random_shift(key, example):
    """Half a voxel at most; one draw, where `augment.random_motion` compiles four."""
    shift = jax.random.uniform(key, (3,), minval=-0.5, maxval=0.5)
    return augment.Motion(jnp.eye(3), shift), example


AUGMENTATION = augment.chain(random_shift, augment.random_flip((1, 0)))


class ToyOutputs(NamedTuple):
    logits: jax.Array  # [B, L, D, H, W]
    seen: jax.Array  # [B, L], logit of a landmark's being visible


class ToyNetwork:
    """A map of its own for each landmark, bent by the image; compiles in a second."""

    widths = (1,)

    def init(self, key, x):
        return {
            "weights": jnp.linspace(-1.0, 2.0, 6).reshape(3, LANDMARKS, 1, 1, 1),
            "field": jax.random.normal(key, (LANDMARKS, SIDE, SIDE, SIDE)),
        }

    def apply(self, params, x):
        a, b, c = params["weights"]
        x = x[..., 0][:, None]
        bent = jnp.tanh(a[None] * x) + b[None] * jnp.roll(x, 1, axis=3)
        logits = bent + params["field"][None] * jnp.tanh(c[None] * x * x)
        return ToyOutputs(logits, jnp.mean(bent, axis=(2, 3, 4)))


def sum_losses(params, examples):
    """The study's loss of what can be seen; of what is there, whether it can be seen."""
    outputs = apply_model(params, examples.volumes, model=ToyNetwork())
    maps = losses.sum_losses(
        outputs.logits,
        examples.points_vox,
        examples.visible,
        **{"name": "emd", "kind": "gaussian", "width_mm": 3.0, "spacing_mm": 2.0},
    )
    cross_entropy = jax.nn.softplus(outputs.seen) - jnp.where(examples.visible, outputs.seen, 0.0)
    return {
        "maps": LossSum(maps, jnp.sum(examples.visible)),
        "seen": LossSum(
            jnp.sum(jnp.where(examples.present, cross_entropy, 0.0)),
            jnp.sum(examples.present),
            SEEN_WEIGHT,
        ),
    }


DETECTOR = Detector(partial(init_params, model=ToyNetwork()), sum_losses, None, "Toy")


def make_examples(seed):
    rng = np.random.default_rng(seed)
    return Examples(
        volumes=rng.random((BATCH, SIDE, SIDE, SIDE), np.float32),
        points_vox=rng.uniform(2.5, 4.5, (BATCH, LANDMARKS, 3)).astype(np.float32),
        present=PRESENT,
        visible=VISIBLE,
        places=np.arange(BATCH, dtype=np.int32),
    )


@cache
def _make_state(optimizer):
    create = partial(step.create_state, init=DETECTOR.init, optimizer=optimizer)
    return jax.jit(create)(jax.random.key(1))


def make_state(optimizer):
    """A state that the step may overwrite, always the same."""
    return jax.tree.map(jnp.copy, _make_state(optimizer))


def build_step(optimizer, augmented=False, sum_losses=sum_losses):
    return partial(
        step.train_step,
        sum_losses=sum_losses,
        augment=AUGMENTATION if augmented else None,
        optimizer=optimizer,
    )


@cache
def make_step(optimizer, devices, augmented=False):
    """The step on so many devices; kept, for compiling takes longest here."""
    return parallel.map_step(build_step(optimizer, augmented), jax.local_devices()[:devices])


def flatten(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
