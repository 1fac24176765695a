"""fetal_jax as a contender: what is measured goes through the same functions as launch.py."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases
from benchmarks.protocol import Contender, serve
from fetal_jax import losses
from fetal_jax.data import loader
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Case
from fetal_jax.detectors import detector as inference
from fetal_jax.detectors import from_config as network
from fetal_jax.geometry import Grid
from fetal_jax.training import fit as train
from fetal_jax.training import parallel


def make_config(side: int):
    """configs/emd.py; bfloat16 on an accelerator."""
    config = cases.make_config(side)
    if jax.default_backend() != "cpu":
        config.model.dtype = "bfloat16"
    return config


def make_prepared(config, landmarks: int) -> PreparedCases:
    """The shared examples as `preprocess.prepare_dataset` would return them."""
    volumes, points = cases.make_arrays(config.grid.side, landmarks)
    grid = Grid(config.grid.side, config.grid.spacing_mm, np.zeros(3))
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
        np.full(there.shape, np.nan),
    )


def create_state(config, model, optimizer) -> train.TrainState:
    side = 2 ** len(config.model.widths)
    create = partial(train.create_state, model=model, optimizer=optimizer, side=side)
    return jax.jit(create)(jax.random.key(0))


def measure_step(side: int, landmarks: int) -> Contender:
    """The whole step: batch, augmentation, forward, backward, clipping, Adam; as `train.fit`."""
    config = make_config(side)
    prepared = make_prepared(config, landmarks)
    model = network.build_model(config, landmarks)
    optimizer, _ = train.build_optimizer(**config.optim, steps=config.train.steps)
    state = create_state(config, model, optimizer)
    parameters = network.count_parameters(state.params)
    mirror = cases.make_mirror(landmarks)
    step = parallel.map_step(network.build_step(config, model, optimizer, mirror))
    key = jax.random.key(1)

    def load(at):
        return loader.load_batch(
            prepared,
            at - 1,
            batch=config.train.batch,
            seed=config.seed,
            with_completed=config.data.train_on_completed,
        )

    batches = loader.prefetch(load, range(1, 1_000_000))

    def run(steps):
        nonlocal state
        for _ in range(steps):
            _, batch = next(batches)
            state, found = step(state, key, batch)
        jax.block_until_ready((state, found))

    return _contender(run, parameters=parameters)


def measure_network(side: int, landmarks: int) -> Contender:
    """The network alone, forward and backward to every parameter."""
    config = make_config(side)
    model = network.build_model(config, landmarks)
    shape = (config.train.batch, side, side, side)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))
    volumes = jax.random.uniform(jax.random.key(1), (*shape, 1))
    weights = jax.random.normal(jax.random.key(2), (shape[0], landmarks, *shape[1:]))

    def step(params, volumes, weights):
        def measure(params):  # the weights stand for the gradient that a loss would send back
            return jnp.vdot(model.apply(params, volumes), weights)

        return jax.value_and_grad(measure)(params)

    step = parallel.compile_faster(jax.jit(step), params, volumes, weights)

    def run(steps):
        for _ in range(steps):
            found = step(params, volumes, weights)
        jax.block_until_ready(found)

    return _contender(run, parameters=network.count_parameters(params))


def measure_loss(side: int, landmarks: int, name: str) -> Contender:
    """A loss alone, forward and backward: logits [1, L, D, H, W] to their gradient."""
    config = make_config(side)
    settings = config.loss.to_dict() | network.target_settings(config) | {"name": name}
    logits = jax.random.normal(jax.random.key(0), (1, landmarks, side, side, side))
    points = jnp.asarray(cases.make_arrays(side, landmarks)[1][:1])

    def measure(logits, points):
        return jnp.mean(losses.compute_losses(logits, points, **settings))

    step = parallel.compile_faster(jax.jit(jax.value_and_grad(measure)), logits, points)

    def run(steps):
        for _ in range(steps):
            found = step(logits, points)
        jax.block_until_ready(found)

    scratch_mib = step.memory_analysis().temp_size_in_bytes / 2**20
    return _contender(run, scratch_mib=scratch_mib)


def measure_inference(side: int, landmarks: int, volumes: int) -> Contender:
    """`network.build_finder` on so many volumes a step, in batches of config.evaluation.batch."""
    config = make_config(side)
    model = network.build_model(config, landmarks)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))
    find = network.build_finder(config, model)
    examples = {"volumes": cases.make_arrays(side, landmarks)[0][:volumes]}

    def run(steps):
        for _ in range(steps):
            find(inference.Trained(params), examples)  # returns numpy arrays

    return _contender(run)


def _contender(run, **facts):
    def device_peak_mib():
        used = jax.local_devices()[0].memory_stats() or {}
        return used["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in used else None

    return Contender(run, {"device": jax.default_backend(), **facts}, device_peak_mib)


if __name__ == "__main__":
    parallel.reuse_memory()  # as launch.py does
    serve(
        {
            "step": measure_step,
            "network": measure_network,
            "loss": measure_loss,
            "inference": measure_inference,
        }
    )
