"""What a training leaves to look at: its records, and its pictures."""

import json

import numpy as np
import pytest

from fetal_jax.training.fit import StepMetrics
from fetal_jax.training.log import Log, read_seconds


def open_log(workdir, resumed_at=0):
    return Log(workdir, resumed_at=resumed_at, last_step=8, schedule=lambda step: 0.5 * step)


def measure(step, *losses, waiting_share=0.25):
    metrics = [{"loss": np.float32(x), "grad_norm": np.float32(x * x)} for x in losses]
    return StepMetrics(step, metrics, waiting_share)


def read_log(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_record_is_the_mean_since_the_last(tmp_path):
    log = open_log(tmp_path)
    log.write(measure(2, 1.0, 2.0))
    log.write(measure(3, 3.0), saved=True, d_mean_mm=4.5)
    log.close()
    first, second = read_log(tmp_path)
    seconds = [first.pop("seconds"), second.pop("seconds")]
    assert seconds == sorted(seconds) and read_seconds(tmp_path) == seconds[1]
    # the rate is the one that the last of the steps was taken with
    assert first == {
        "step": 2,
        "loss": 1.5,
        "grad_norm": 2.5,
        "lr": 0.5,
        "waiting_share": 0.25,
    }
    assert second == first | {
        "step": 3,
        "loss": 3.0,
        "grad_norm": 9.0,
        "lr": 1.0,
        "validation_d_mean_mm": 4.5,
    }


def test_each_loss_has_its_column(tmp_path):
    log = open_log(tmp_path)
    log.write(StepMetrics(1, [{"loss": 3.0, "grad_norm": 1.0, "loss/maps": 2.0}], 0.0))
    log.close()
    assert read_log(tmp_path)[0]["loss/maps"] == 2.0


def test_tensorboard_has_the_numbers_and_the_pictures(tmp_path):
    log = open_log(tmp_path)
    log.write(measure(1, 1.0), d_mean_mm=2.0)
    for step in (1, 2):
        log.show(step, np.full((2, 3, 3), step, np.uint8))
    log.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert events.count(b"\x89PNG") == 2
    for name in (b"loss", b"grad_norm", b"lr", b"waiting_share", b"validation_d_mean_mm"):
        assert name in events


def test_what_came_after_the_checkpoint_is_dropped(tmp_path):
    lines = [json.dumps({"step": s, "loss": 1.0, "seconds": s / 2}) for s in (2, 4, 6, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9, "lo')
    log = open_log(tmp_path, resumed_at=5)
    log.write(measure(6, 3.0))
    log.close()
    found = read_log(tmp_path)
    assert [(r["step"], r["loss"]) for r in found] == [(2, 1.0), (4, 1.0), (6, 3.0)]
    assert found[-1]["seconds"] == pytest.approx(2.0, abs=1.0)  # goes on from those of step 4


def test_a_new_log_is_empty(tmp_path):
    open_log(tmp_path).close()
    assert read_seconds(tmp_path) == 0.0 and read_log(tmp_path) == []


def test_the_screen_says_how_far_it_is(tmp_path, capsys):
    """Where it is a file only what was saved has a line; a validation's number stays."""
    log = open_log(tmp_path)
    log.write(measure(4, 1.0), saved=True, d_mean_mm=2.346)
    log.write(measure(6, 0.5))
    log.write(measure(8, 0.25), saved=True)
    log.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("step 4/8  loss 1.000  validation d-mean 2.35 mm  ")
    assert second.startswith("step 8/8  loss 0.250  validation d-mean 2.35 mm  0:00 left")


def test_another_process_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = open_log(None)
    log.write(measure(1, 1.0))
    log.show(1, np.zeros((2, 2, 3), np.uint8))
    log.close()
    assert list(tmp_path.iterdir()) == []
