"""The loop round the step: boring, and never idle while a step could run."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from fetal_jax.examples import Examples
from fetal_jax.training.step import TrainState


class NotFinite(ArithmeticError):
    """A step's loss or gradient is no longer a number."""

    def __init__(self, step: int, name: str, value: float):
        super().__init__(f"step {step}: expected a finite {name}, got {value}")
        self.step, self.name, self.value = step, name, value


class StepMetrics(NamedTuple):
    """Metrics of the steps up to `step`, since the last time."""

    step: int
    metrics: list[dict[str, Any]]  # of each step, on the host
    waiting_share: float  # of the time so far, for batches, while no step ran


def fit(
    state: TrainState,
    step_function: Callable[[TrainState, jax.Array, Examples], tuple[TrainState, dict]],
    batches: Iterable[tuple[int, Examples]],
    *,
    key: jax.Array,
    last_step: int,
    log_every: int,
    log: Callable[[StepMetrics], None],
    save_every: int,
    save: Callable[[StepMetrics, TrainState], None],
) -> TrainState:
    """Train on every batch.

    Args:
      step_function: step_function(state, key, examples) -> (state, metrics), as of `map_step`.
      batches: (step, examples), the first step being 1.
      key: of all that is random in a step.
      last_step: of the whole training; it is saved.
      log_every, log: `log` is called while the next step runs, which does not wait for it.
      save_every, save: `save` is called instead of `log` where both are due, and no step runs
        meanwhile.

    Raises:
      NotFinite: before anything of that step is logged or saved.
    """
    began = time.monotonic()
    waited, ready, metrics = 0.0, began, {}
    pending: list[dict] = []  # stay on the device
    due: tuple[int, list[dict]] | None = None  # to be logged, once the next step runs

    def fetch(step: int, metrics: list[dict]) -> StepMetrics:
        fetched = jax.device_get(metrics)
        check_finite(step, fetched)
        return StepMetrics(step, fetched, waited / max(time.monotonic() - began, 1e-9))

    for step, examples in batches:
        if not _is_running(metrics):  # else the device has not noticed
            waited += time.monotonic() - ready
        state, metrics = step_function(state, key, examples)
        pending.append(metrics)
        if due is not None:
            log(fetch(*due))
            due = None
        if step % save_every == 0 or step == last_step:
            save(fetch(step, pending), state)
            pending = []
        elif step % log_every == 0:
            due, pending = (step, pending), []
        ready = time.monotonic()
    if due is not None:
        log(fetch(*due))
    return state


def _is_running(metrics: dict[str, Any]) -> bool:
    """Whether the step that returned the metrics is still being computed."""
    return any(hasattr(leaf, "is_ready") and not leaf.is_ready() for leaf in metrics.values())


def check_finite(step: int, metrics: list[dict]) -> None:
    """Raise `NotFinite` for the first of the steps up to `step` that went wrong."""
    for at, of_step in enumerate(metrics, start=step - len(metrics) + 1):
        for name in ("loss", "grad_norm"):
            value = float(of_step[name])
            if not abs(value) < float("inf"):
                raise NotFinite(at, name.replace("_", " "), value)
