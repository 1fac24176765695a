"""From the values of a config to an optimizer, an augmentation, a step and a finder."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from fetal_jax import artefacts, augment, elastic
from fetal_jax.augment import Augmentation
from fetal_jax.data.lazy_volumes import list_volumes
from fetal_jax.detectors.detector import Detector, Found
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.training import parallel, step

# config.augment's keys of artefacts, in the order in which a scan gets them: echoes interfere, the
# machine amplifies them, what hides them hides all
ARTEFACTS = {
    "max_speckle": artefacts.random_speckle,
    "max_attenuation_db": artefacts.random_attenuation,
    "max_shadow_db": artefacts.random_shadow,
    "max_dropout_degrees": artefacts.random_dropout,
}


def check_devices(config: ConfigDict, devices: int | None = None) -> None:
    """Raise an InputError if the devices (by default those that are there) cannot share a batch."""
    devices = devices or jax.device_count()
    depth, batch = config.devices.depth, config.train.batch
    each = devices // jax.process_count()  # a volume is split within a process
    if depth < 1 or each % depth:
        raise InputError(
            f"config.devices.depth: expected a divisor of the {each} devices of a process, "
            f"got {depth}"
        )
    groups = devices // depth
    if batch % groups:
        what = "devices" if depth == 1 else f"groups of {depth} devices"
        raise InputError(
            f"config.train.batch: expected a multiple of the {groups} {what}, got {batch}"
        )


def count_steps(config: ConfigDict, training_cases: int) -> int:
    """config.train.steps, or what config.train.epochs makes of it."""
    if config.train.epochs:
        return -(-config.train.epochs * training_cases // config.train.batch)
    return config.train.steps


def build_optimizer(
    config: ConfigDict, steps: int, taken: Collection[str] = ()
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """`step.make_optimizer` of config.optim.

    Args:
      taken: names of parameters that are another run's: they learn at config.init.lr_share.
    """
    chosen = dict(config.optim.to_dict(), steps=steps)
    if taken and config.init.lr_share != 1:
        chosen |= dict(slower=partial(_mark, taken), slower_share=config.init.lr_share)
    return step.make_optimizer(**chosen)


def _mark(names: Collection[str], params: dict) -> dict:
    """Which of the parameters have one of these names."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({name: name in names for name in flat}, sep="/")


def build_augmentation(config: ConfigDict, mirror: Sequence[int] | None) -> Augmentation | None:
    """The chain of config.augment; None where it is off.

    Args:
      mirror: for each landmark the index of the one on the other side; None for no flips.
    """
    chosen = config.augment
    if not chosen.on:
        return None
    members = []
    if chosen.max_strain:  # the first member acts last, where an elastic deformation costs least
        members.append(elastic.random_elastic(max_strain=chosen.max_strain))
    motion = {name: chosen[name] for name in ("max_degrees", "max_scale", "max_shift_vox")}
    if any(motion.values()):  # else each step would resample its volumes for nothing
        members.append(augment.random_motion(**motion))
    for name, build in ARTEFACTS.items():
        if chosen[name]:
            members.append(build(**{name: chosen[name]}))
    members.append(
        augment.random_intensity(
            max_gamma=chosen.max_gamma, max_gain=chosen.max_gain, max_noise=chosen.max_noise
        )
    )
    if chosen.flip and mirror is not None:
        members.append(augment.random_flip(tuple(int(i) for i in mirror)))
    return augment.chain(*members)


def build_step(
    config: ConfigDict,
    detector: Detector,
    optimizer: optax.GradientTransformation,
    mirror: Sequence[int] | None,
    devices: Sequence[jax.Device] | None = None,
) -> Callable:
    """`step.train_step` with everything but its arrays bound, for `parallel.map_step`.

    Args:
      mirror: of `build_augmentation`.
      devices: that it will be mapped over; None for all.
    """
    mesh = parallel.make_mesh(config.devices.depth, devices)
    return partial(
        step.train_step,
        sum_losses=_split_examples(detector.sum_losses, mesh),
        augment=build_augmentation(config, mirror),
        optimizer=optimizer,
    )


def build_finder(config: ConfigDict, detector: Detector) -> Callable[[dict, Examples], Found]:
    """A detector's `find` on all devices, for examples of any number; numpy in and out."""
    depth = config.devices.depth
    mesh = parallel.make_mesh(depth, jax.local_devices())
    mapped = parallel.map_batches(_split_examples(detector.find, mesh), depth=depth)

    def find(params: dict, examples: Examples) -> Found:
        volumes = list_volumes(examples.volumes).astype(np.float32)
        examples = examples._replace(volumes=volumes)
        return mapped(params, examples, batch=config.evaluation.batch)

    return find


def _split_examples(function, mesh):
    """function(params, examples), with the depth of the volumes split over the mesh's devices."""
    return lambda params, examples: function(params, parallel.split_depth(examples, mesh))


def count_parameters(params: dict) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
