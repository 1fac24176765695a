"""What a training leaves to look at: metrics.jsonl, TensorBoard, and a line on the screen."""

import json
import time
from pathlib import Path

import numpy as np
import optax
from tensorboardX import SummaryWriter

from fetal_jax.io.files import write_atomically
from fetal_jax.progress import Progress, format_seconds
from fetal_jax.training.fit import StepMetrics

METRICS_JSONL = "metrics.jsonl"


class Log:
    """metrics.jsonl and TensorBoard of a run; on a resume, what came after the checkpoint goes.

    Args:
      workdir: the run's folder; None writes no files, as in all processes but the first.
      resumed_at, last_step: where training begins, and where it ends.
      schedule: the learning rate as a function of the step.
    """

    def __init__(
        self, workdir: Path | None, *, resumed_at: int, last_step: int, schedule: optax.Schedule
    ):
        self._board, self._path = None, None
        self._first, self._last, self._schedule = resumed_at, last_step, schedule
        self._began, self._before, self._shown = time.monotonic(), 0.0, ""
        self._progress = Progress()
        if workdir is None:
            return
        self._path = workdir / METRICS_JSONL
        kept = [r for r in _read_records(self._path) if r["step"] <= resumed_at]
        if kept:
            self._before = kept[-1]["seconds"]
        write_atomically(self._path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_at + 1)

    def write(
        self, latest: StepMetrics, *, saved: bool = False, d_mean_mm: float | None = None
    ) -> None:
        """Means over the steps; `saved`: worth a line even where the screen is a file."""
        step, seconds = latest.step, time.monotonic() - self._began
        names = latest.metrics[0]
        record = {
            "step": step,
            **{name: float(np.mean([m[name] for m in latest.metrics])) for name in names},
            "lr": float(self._schedule(step - 1)),
            "seconds": round(self._before + seconds, 3),
            "waiting_share": round(latest.waiting_share, 4),  # since the (re)start
        }
        if d_mean_mm is not None:
            record["validation_d_mean_mm"] = d_mean_mm
            self._shown = f"  validation d-mean {d_mean_mm:.2f} mm"
        self._keep(record)
        left = (self._last - step) * seconds / (step - self._first)
        self._progress.show(
            f"step {step}/{self._last}  loss {record['loss']:.3f}{self._shown}"
            f"  {format_seconds(left)} left",
            worth_keeping=saved,
        )

    def _keep(self, record: dict) -> None:
        if self._path is None:
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


def _read_records(path: Path) -> list[dict]:
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # cut off by a kill
            continue
    return records


def read_seconds(workdir: Path) -> float:
    """Seconds of training so far, over all restarts, from metrics.jsonl."""
    records = _read_records(workdir / METRICS_JSONL)
    return records[-1]["seconds"] if records else 0.0
