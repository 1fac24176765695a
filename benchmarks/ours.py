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
from fetal_jax.training.compiling import compile_faster
from fetal_jax.training.devices import reuse_memory
from fetal_jax.training.from_config import (
    build_finder,
    build_optimizer,
    build_step,
    count_parameters,
)
from fetal_jax.training.step import TrainState, create_state


def make_config(side: int):
    """configs/emd.py; bfloat16 on an accelerator."""
    config = cases.make_config(side)
    if jax.default_backend() != "cpu":
        config.model.dtype = "bfloat16"
    return config


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


def measure_step(side: int, landmarks: int) -> Contender:
    """The whole step: batch, augmentation, forward, backward, clipping, Adam; as `training.fit`."""
    config = make_config(side)
    prepared = make_prepared(config, landmarks)
    detector = build_detector(config, landmarks)
    optimizer, _ = build_optimizer(config, config.train.steps)
    state = init_state(detector, optimizer)
    parameters = count_parameters(state.params)
    mirror = cases.make_mirror(landmarks)
    step = parallel.map_step(build_step(config, detector, optimizer, mirror))
    key = jax.random.key(1)

    def load(at):
        batch, seed = config.train.batch, config.seed
        return loader.load_examples(prepared, at - 1, batch=batch, seed=seed)

    batches = loader.prefetch(load, range(1, 1_000_000))

    def run(steps):
        nonlocal state
        for _ in range(steps):
            _, examples = next(batches)
            state, metrics = step(state, key, examples)
        jax.block_until_ready((state, metrics))

    return _contender(run, parameters=parameters)


def measure_network(side: int, landmarks: int) -> Contender:
    """The network alone, forward and backward to every parameter."""
    config = make_config(side)
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

    return _contender(run, parameters=count_parameters(params))


def measure_loss(side: int, landmarks: int, name: str) -> Contender:
    """A loss alone, forward and backward: logits [1, L, D, H, W] to their gradient."""
    config = make_config(side)
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


def measure_inference(side: int, landmarks: int, volumes: int) -> Contender:
    """`build_finder` on so many volumes a step, in batches of config.evaluation.batch."""
    config = make_config(side)
    detector = build_detector(config, landmarks)
    params = init_params(detector)
    find = build_finder(config, detector)
    examples = Examples(volumes=cases.make_arrays(side, landmarks)[0][:volumes])

    def run(steps):
        for _ in range(steps):
            find(params, examples)  # returns numpy arrays

    return _contender(run)


def _contender(run, **facts):
    def device_peak_mib():
        used = jax.local_devices()[0].memory_stats() or {}
        return used["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in used else None

    return Contender(run, {"device": jax.default_backend(), **facts}, device_peak_mib)


if __name__ == "__main__":
    reuse_memory()  # as launch.py does
    serve(
        {
            "step": measure_step,
            "network": measure_network,
            "loss": measure_loss,
            "inference": measure_inference,
        }
    )
