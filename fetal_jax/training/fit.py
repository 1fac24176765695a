"""Training: a pure step, and a boring loop round it."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tensorboardX import SummaryWriter

from fetal_jax import augment, metrics
from fetal_jax.data import loader
from fetal_jax.data.cases import PreparedCases
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.progress import Progress, format_seconds
from fetal_jax.training import checkpoint, parallel

PICTURES = 10  # of a validation case in TensorBoard, over a run


class TrainState(NamedTuple):
    """All that changes in training."""

    step: jax.Array  # int32, steps done
    params: dict
    opt_state: optax.OptState


def build_optimizer(
    *, lr: float, steps: int, warmup_steps: int, clip_norm: float, weight_decay: float, decay: str
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam with clipping and a linear warm-up, then a cosine to 1 % ("cosine") or "constant".

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
        raise InputError(f"config.optim.decay: expected 'cosine' or 'constant', got {decay!r}")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    adam = optax.adamw(schedule, weight_decay=weight_decay)
    return optax.chain(clip, adam), schedule


def create_state(key: jax.Array, model, optimizer, side: int) -> TrainState:
    """Fresh parameters; jit it. Their number does not depend on the side."""
    params = model.init(key, jnp.zeros((1, side, side, side, 1)))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def train_step(
    state: TrainState,
    key: jax.Array,
    batch: dict[str, jax.Array],
    *,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    sum_losses: Callable,
    augmentation: dict | None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on one device's share of a batch, inside `parallel.map_step`.

    The loss is the mean over the landmarks that are there in the whole batch: sums and counts are
    added over the devices and divided once, for devices see different numbers of landmarks.

    Args:
      state: the same on every device.
      key: the run's; an example's own is made from it by the step and its place in the batch.
      batch: of `loader.load_batch`.
      apply: apply(params, [b, D, H, W, 1]) -> the network's outputs.
      optimizer: as built by `build_optimizer`.
      sum_losses: sum_losses(outputs, points_vox, counted) -> a scalar, over the counted landmarks.
      augmentation: settings of `augment.augment`, or None.

    Returns:
      The next state, and {"loss", "grad_norm"}.
    """
    volumes, points, counted = batch["volumes"], batch["points_vox"], batch["counted"]
    if augmentation is not None:
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(batch["places"])
        volumes, points, counted = jax.vmap(partial(augment.augment, **augmentation))(
            keys, volumes, points, counted
        )

    def measure(params):
        return sum_losses(apply(params, volumes[..., None]), points, counted)

    total, gradient = jax.value_and_grad(measure)(state.params)
    count = jnp.sum(counted)
    total, gradient, count = parallel.psum((total, gradient, count))
    count = jnp.maximum(count, 1)
    gradient = jax.tree.map(lambda g: g / count, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    found = {"loss": total / count, "grad_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, params, opt_state), found


class Log:
    """metrics.jsonl and TensorBoard; on a resume, what came after the checkpoint is dropped.

    With no folder nothing is written.
    """

    def __init__(self, workdir: Path | None, resumed_at: int):
        self.seconds_before, self._board = 0.0, None
        if workdir is None:
            return
        self._path = workdir / "metrics.jsonl"
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # cut off by a kill
                    continue
                if record["step"] <= resumed_at:
                    kept.append(record)
        if kept:
            self.seconds_before = kept[-1]["seconds"]
        write_atomically(self._path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, record: dict) -> None:
        if self._board is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(name, value, record["step"])

    def show(self, step: int, picture: np.ndarray) -> None:
        """A picture [H, W, 3] uint8 of a validation case, in TensorBoard."""
        if self._board is not None:
            self._board.add_image("validation", picture, step, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def fit(
    workdir: Path,
    state: TrainState,
    step_function: Callable,
    validate: Callable | None,
    prepared: PreparedCases,
    *,
    seed: int,
    steps: int,
    batch: int,
    with_completed: bool,
    log_every: int,
    save_every: int,
    schedule: optax.Schedule,
) -> TrainState:
    """Train from the latest checkpoint, or from `state`, to `steps`.

    Args:
      step_function: step_function(state, key, batch) -> (state, metrics), as of `map_step`.
      validate: validate(params) -> (d-mean in mm, draw() -> picture [H, W, 3] uint8); None if
        there is nothing to validate on.
      prepared: the training cases.
      seed: of the order of the cases and of all that is random in a step.
      log_every, save_every: steps between two log records, and between two validations and
        checkpoints. The last step has both.

    Raises:
      InputError: the loss is no longer finite; the step and its cases are named.
    """
    first = parallel.is_first()
    manager = checkpoint.open_checkpoints(workdir / "checkpoints") if first else None
    start = parallel.from_first(lambda: manager.latest_step() or 0)
    if start:
        fresh = state
        state = parallel.from_first(lambda: checkpoint.restore_checkpoint(manager, start, fresh))
        print(f"going on from step {start} of {steps}")
    log, progress = Log(workdir if first else None, start), Progress()
    key = jax.random.fold_in(jax.random.key(seed), 1)  # 0 made the parameters
    pending, d_mean, began = [], float("nan"), time.monotonic()

    def load(step):
        return loader.load_batch(
            prepared,
            step - 1,
            batch=batch,
            seed=seed,
            with_completed=with_completed,
            share=parallel.local_share(batch),
        )

    batches = loader.prefetch(load, range(start + 1, steps + 1))
    waited, ready = 0.0, began
    seldom = max(1, steps // save_every // PICTURES)
    for step, data in batches:
        waited += time.monotonic() - ready
        state, found = step_function(state, key, data)
        pending.append(found)  # stays on the device
        saving = step % save_every == 0 or step == steps
        if not saving and step % log_every:
            ready = time.monotonic()
            continue
        fetched = jax.device_get(pending)
        pending = []
        _check_finite(fetched, step, prepared, batch, seed)
        seconds = time.monotonic() - began
        record = {
            "step": step,
            "loss": float(np.mean([f["loss"] for f in fetched])),
            "grad_norm": float(np.mean([f["grad_norm"] for f in fetched])),
            "lr": float(schedule(step - 1)),
            "seconds": round(log.seconds_before + seconds, 3),
            "waiting_share": round(waited / seconds, 4),  # for batches, since the (re)start
        }
        if saving and validate is not None:
            d_mean, draw = validate(parallel.localise(state.params))
            record["validation_d_mean_mm"] = d_mean
            if first and (step == steps or step // save_every % seldom == 0):
                log.show(step, draw())
        log.write(record)
        left = (steps - step) * seconds / (step - start)
        shown = "" if np.isnan(d_mean) else f"  validation d-mean {d_mean:.2f} mm"
        progress.show(
            f"step {step}/{steps}  loss {record['loss']:.3f}{shown}  {format_seconds(left)} left",
            worth_keeping=saving,
        )
        if saving and first:
            # without validation the latest counts as the best
            rank = d_mean if validate is not None else 1.0 / step
            checkpoint.save_checkpoint(manager, step, parallel.localise(state), rank)
        ready = time.monotonic()
    log.close()
    if first:
        manager.close()
    return state


def _check_finite(fetched, step, prepared, batch, seed):
    """Of the steps up to `step`, the first that went wrong."""
    for at, found in enumerate(fetched, start=step - len(fetched) + 1):
        bad = [name for name in ("loss", "grad_norm") if not np.isfinite(found[name])]
        if bad:
            cases = loader.draw_indices(len(prepared), at - 1, batch=batch, seed=seed)
            names = ", ".join(prepared.cases[i].name for i in cases)
            raise InputError(
                f"step {at}: expected a finite {bad[0].replace('_', ' ')}, got "
                f"{float(found[bad[0]])}, on {names}; a lower config.optim.lr may help"
            )


def mean_error(found_mm: np.ndarray, prepared: PreparedCases) -> float:
    """d-mean in mm over the visible landmarks, points [N, L, 3]; NaN if there are none."""
    errors = metrics.radial_errors(found_mm, prepared.points_mm)
    return float(np.mean(errors[prepared.visible])) if prepared.visible.any() else float("nan")


def read_seconds(workdir: Path) -> float:
    """Seconds of training so far, over all restarts, from metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["seconds"] if lines else 0.0
