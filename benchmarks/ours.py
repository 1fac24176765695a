"""fetal_jax as a contender: what is measured goes through the same functions as launch.py."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases
from benchmarks.protocol import Contender, serve
from fetal_jax import geometry, losses
from fetal_jax.data import loader
from fetal_jax.data.case_table import Case
from fetal_jax.data.cases import PreparedCases
from fetal_jax.detectors.detector import Detector
from fetal_jax.detectors.from_config import build_detector, build_resunet3d, build_target
from fetal_jax.examples import Examples
from fetal_jax.training import parallel
from fetal_jax.training.compiling import compile_faster, measure_memory
from fetal_jax.training.devices import reuse_memory
from fetal_jax.training.from_config import (
    build_finder,
    build_optimizer,
    build_step,
    count_parameters,
)
from fetal_jax.training.processes import local_share
from fetal_jax.training.step import TrainState, create_state


def make_prepared(config, landmarks: int) -> PreparedCases:
    """The shared examples as `data.cases.prepare_dataset` would return them."""
    volumes, points = cases.make_arrays(config.grid.side, landmarks)
    grid = geometry.align_grid(volumes.shape[1:], config.grid.spacing_mm, np.zeros(3))
    there = np.ones(points.shape[:2], bool)
    names = [f"c{i}" for i in range(len(points))]
    return PreparedCases(
        tuple(Case(n, Path(f"{n}.nii.gz"), Path(f"{n}.mrk.json"), subject=n) for n in names),
        (grid,) * len(points),
        volumes,
        grid.to_world(points),
        points,
        there,
        there,
        there,
        np.full(there.shape, np.nan),
        np.full(points.shape, np.nan),
    )


def make_loss_settings(config) -> dict:
    """Of `losses.landmark_loss`."""
    return config.loss.to_dict() | build_target(config)._asdict()


def init_params(detector: Detector) -> dict:
    return jax.jit(detector.init)(jax.random.key(0))


def init_state(detector: Detector, optimizer) -> TrainState:
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    return jax.jit(create)(jax.random.key(0))


def measure_step(side: int, landmarks: int, batch: int = 0, **settings) -> Contender:
    """The whole step: batch, augmentation, forward, backward, clipping, Adam; as `training.fit`.

    Args:
      batch: over all devices; 0 for the config's.
      settings: of `cases.make_config`.
    """
    config = cases.make_config(side, **settings)
    config.train.batch = batch or config.train.batch
    prepared = make_prepared(config, landmarks)
    detector = build_detector(config, landmarks)
    optimizer, _ = build_optimizer(config, config.train.steps)
    state = init_state(detector, optimizer)
    parameters = count_parameters(state.params)
    mirror = cases.make_mirror(landmarks)
    train_step = build_step(config, detector, optimizer, mirror)
    step = parallel.map_step(train_step)
    key = jax.random.key(1)

    def load(at):
        batch, seed, share = config.train.batch, config.seed, local_share(config.train.batch)
        return loader.load_examples(prepared, at - 1, batch=batch, seed=seed, share=share)

    batches = loader.prefetch(load, range(1, 1_000_000))

    def run(steps):
        nonlocal state
        for _ in range(steps):
            _, examples = next(batches)
            state, metrics = step(state, key, examples)
        jax.block_until_ready((state, metrics))

    def measure_step_mib():  # the same program again, from the cache on disk where there is one
        shapes = jax.eval_shape(lambda state: state, state)
        batch, shape = config.train.batch, (side,) * 3
        program = parallel.compile_step(
            train_step, shapes, batch=batch, shape=shape, landmarks=landmarks
        )
        return measure_memory(program) / 2**20

    return _contender(run, measure_step_mib, parameters=parameters)


def measure_network(side: int, landmarks: int, **settings) -> Contender:
    """The network alone, forward and backward to every parameter."""
    config = cases.make_config(side, **settings)
    model = build_resunet3d(config, landmarks)
    shape = (config.train.batch, side, side, side)
    params = init_params(build_detector(config, landmarks))
    volumes = jax.random.uniform(jax.random.key(1), (*shape, 1))
    weights = jax.random.normal(jax.random.key(2), (shape[0], landmarks, *shape[1:]))

    def step(params, volumes, weights):
        def measure(params):  # the weights stand for the gradient that a loss would send back
            return jnp.vdot(model.apply(params, volumes).logits, weights)

        return jax.value_and_grad(measure)(params)

    step = compile_faster(jax.jit(step), params, volumes, weights)

    def run(steps):
        for _ in range(steps):
            value_and_gradient = step(params, volumes, weights)
        jax.block_until_ready(value_and_gradient)

    def measure_step_mib():
        return measure_memory(step) / 2**20

    return _contender(run, measure_step_mib, parameters=count_parameters(params))


def measure_loss(side: int, landmarks: int, name: str) -> Contender:
    """A loss alone, forward and backward: logits [1, L, D, H, W] to their gradient."""
    config = cases.make_config(side)
    settings = make_loss_settings(config) | {"name": name}
    logits = jax.random.normal(jax.random.key(0), (1, landmarks, side, side, side))
    points = jnp.asarray(cases.make_arrays(side, landmarks)[1][:1])

    def measure(logits, points):
        return jnp.mean(losses.compute_losses(logits, points, **settings))

    step = compile_faster(jax.jit(jax.value_and_grad(measure)), logits, points)

    def run(steps):
        for _ in range(steps):
            value_and_gradient = step(logits, points)
        jax.block_until_ready(value_and_gradient)

    scratch_mib = step.memory_analysis().temp_size_in_bytes / 2**20
    return _contender(run, scratch_mib=scratch_mib)


def measure_inference(side: int, landmarks: int, volumes: int, **settings) -> Contender:
    """`build_finder` on so many volumes a step, in batches of config.evaluation.batch."""
    config = cases.make_config(side, **settings)
    detector = build_detector(config, landmarks)
    params = init_params(detector)
    find = build_finder(config, detector)
    examples = Examples(volumes=cases.make_arrays(side, landmarks)[0][:volumes])

    def run(steps):
        for _ in range(steps):
            find(params, examples)  # returns numpy arrays

    return _contender(run)


def measure_copy(mib: int) -> Contender:
    """Nothing of ours: an array read and written, for the rate at which the device copies."""
    array = jnp.zeros(mib * 2**18)
    add = jax.jit(lambda a: a + 1, donate_argnums=0)

    def run(steps):
        nonlocal array
        for _ in range(steps):
            array = add(array)
        jax.block_until_ready(array)

    return _contender(run, kind=jax.devices()[0].device_kind, copied_bytes=2 * array.nbytes)


def _contender(run, step_mib=lambda: None, **facts):
    def device_peak_mib():
        used = jax.local_devices()[0].memory_stats() or {}
        return used["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in used else None

    facts["device"] = jax.default_backend()
    return Contender(run, facts, device_peak_mib, step_mib)


if __name__ == "__main__":
    reuse_memory()  # as launch.py does
    serve(
        {
            "step": measure_step,
            "network": measure_network,
            "loss": measure_loss,
            "inference": measure_inference,
            "copy": measure_copy,
        }
    )
