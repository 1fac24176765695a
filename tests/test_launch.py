"""launch.py as processes of their own: the whole path, kills and restarts.

What a command refuses is in test_cli.py, what a mode does in tests/modes.
"""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from noise_runs import ROOT, make_flags, read_numbers

from fetal_jax.training import checkpoint

STEPS = 24
SMALL = {"train.batch": 1, "train.steps": STEPS, "log.every": 1}


def start(*argv):
    """A process of one device whose programs are compiled as on a user's CPU."""
    return subprocess.Popen(
        [sys.executable, "launch.py", *map(str, argv)],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """What it printed, once it has ended as it should."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    return out


@pytest.fixture(scope="module")
def flags(noise_root):
    return make_flags(noise_root, **SMALL)


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The folder of a run that nobody stopped, and what it printed."""
    workdir = tmp_path_factory.mktemp("launch") / "whole"
    return workdir, finish(start(*flags, f"--workdir={workdir}"))


def test_a_command_trains_and_evaluates(whole):
    workdir, printed = whole
    lines = printed.splitlines()
    assert lines[0] == "running on 1 cpu device"
    results = json.loads((workdir / "results.json").read_text())
    assert results["steps"] == STEPS and results["device"] == "1 cpu device"
    assert any(f"d-mean {results['d_mean_mm']:.2f} mm" in line for line in lines)
    assert "\r" not in printed  # a file is no terminal


def test_a_refusal_is_a_line_and_a_status(flags):
    process = start(*flags, "--config.optim.lr=-1.0")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert err == "error: config.optim.lr: expected more than 0, got -1.0\n"


def wait_for(process, found):
    """True as soon as found() is; False if the process ends first."""
    while process.poll() is None:
        if found():
            return True
        time.sleep(0.002)
    return False


def read_state(workdir):
    manager = checkpoint.open_checkpoints(workdir / "checkpoints")
    state = manager.restore(manager.latest_step())
    manager.close()
    return jax.tree.leaves(state)


def test_killed_and_started_again_it_ends_with_the_same_numbers(flags, whole, tmp_path):
    """In the middle of a save; `kills.py` has other moments."""
    checkpoints = tmp_path / "checkpoints"
    process = start(*flags, f"--workdir={tmp_path}")

    def reached():
        done = [int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()]
        return max(done, default=0) >= 10 and any(checkpoints.glob("*orbax-checkpoint-tmp*"))

    assert wait_for(process, reached), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert any(checkpoints.glob("*orbax-checkpoint-tmp*"))  # a save was cut off
    printed = finish(start(*flags, f"--workdir={tmp_path}"))
    begun = [int(line.split()[4]) for line in printed.splitlines() if "going on from" in line]
    assert begun and begun[0] >= 10
    assert not any(checkpoints.glob("*orbax-checkpoint-tmp*"))
    for ours, theirs in zip(read_state(tmp_path), read_state(whole[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metrics = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert read_numbers(tmp_path) == read_numbers(whole[0])
