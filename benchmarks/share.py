"""One process of several, as `benchmarks.scaling` starts them: ours, on one core."""

import dataclasses
import os
from functools import partial

import jax
from jax.experimental import multihost_utils

from benchmarks import cases, exchange, ours
from benchmarks.protocol import Contender, serve
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.training import parallel
from fetal_jax.training.compiling import FASTER
from fetal_jax.training.devices import reuse_memory
from fetal_jax.training.from_config import build_optimizer, build_step, count_parameters
from fetal_jax.training.processes import start_processes
from fetal_jax.training.step import create_state


def measure_step(
    side: int,
    landmarks: int,
    process: int,
    processes: int,
    core: int,
    coordinator: str,
    **settings,
) -> Contender:
    """The whole step of a batch of one example a process; all processes call it."""
    os.sched_setaffinity(0, {core})
    # one process compiles with these and several do not (`parallel.map_step`): here all do
    options = [f"--{name}={value}" for name, value in FASTER["cpu"].items()]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *options])
    if processes > 1:
        start_processes(coordinator, processes, process)
        # They connect here, at once: in a step one that has compiled waits 30 s for the others to
        # connect, and no longer.
        multihost_utils.sync_global_devices("started")
    contender = ours.measure_step(side, landmarks, batch=processes, **settings)
    return dataclasses.replace(contender, step_mib=lambda: None)


def measure_exchange(side: int, landmarks: int, **settings) -> Contender:
    """Nothing to time: what the program for two devices sums over them."""
    jax.config.update("jax_num_cpu_devices", 2)
    config = cases.make_config(side, **settings)
    detector = build_detector(config, landmarks)
    optimizer, _ = build_optimizer(config, 1000)
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    state = jax.eval_shape(create, jax.random.key(0))
    step = build_step(config, detector, optimizer, None)
    program = parallel.compile_step(step, state, batch=2, shape=(side,) * 3, landmarks=landmarks)
    facts = {
        "summed_bytes": exchange.count_all_reduced_bytes(program.as_text()),
        "parameter_bytes": 4 * count_parameters(state.params),
    }
    return Contender(lambda steps: None, facts)


if __name__ == "__main__":
    reuse_memory()  # as launch.py does
    serve({"step": measure_step, "exchange": measure_exchange})
