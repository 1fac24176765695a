"""Two processes on loopback give what one gives: training, a resume, evaluation, its files."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from noise_runs import make_flags, read_results, write_cohort

from configs import emd
from fetal_jax.errors import InputError
from fetal_jax.modes.train import run_train
from fetal_jax.training import checkpoint, processes

LAUNCH = Path(__file__).parents[2] / "launch.py"
# The launcher with two virtual devices.
START = """
import runpy, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SETTINGS = {
    "grid.side": 8,
    "model.widths": (2,),
    "augment.on": False,  # half of what is compiled, and the second process keeps nothing
    "train.batch": 4,
    "train.steps": 4,
    "optim.decay": "constant",
    "optim.warmup_steps": 0,
    "log.every": 1,
    "log.save_every": 2,
    "data.train_on_completed": False,
    "evaluation.batch": 1,
    "aligned.on": True,
    "aligned.widths": (2,),
    "aligned.steps": 2,
    "aligned.spacing_mm": 4.0,
    "aligned.margin_mm": 12.0,  # points of noise lie far from their mean shape
    "evaluation.ela_radius_mm": 20.0,
    "report.on": False,
    "report.surfaces": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The noise cohort, in which some scans show three landmarks, some one and some none."""
    root = tmp_path_factory.mktemp("cohort")
    write_cohort(root)
    lines = (root / "cases.csv").read_text().splitlines()
    seen = ["L R nose", "nose", "", "L R nose", "R"]
    rows = [f"{line},{seen[i % 5]}" for i, line in enumerate(lines[1:])]
    (root / "cases.csv").write_text("\n".join([lines[0] + ",visible", *rows]) + "\n")
    return root


def make_own_flags(root, **changes):
    values = {"data.root": root} | SETTINGS | changes
    return ["--config=configs/emd.py", *(f"--config.{k}={v}" for k, v in values.items())]


def launch(workdirs, *flags):
    """One process a folder, with two devices each; the exit status and texts of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=localhost:{port}", f"--processes={len(workdirs)}"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(LAUNCH), *flags, *together]
            + [f"--process={number}", f"--workdir={workdir}"],
            cwd=LAUNCH.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, workdir in enumerate(workdirs)
    ]
    texts = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *text) for p, text in zip(started, texts, strict=True)]


def succeed(*args, **kwargs):
    ends = launch(*args, **kwargs)
    for status, _, errors in ends:
        assert status == 0, errors
    return [text for _, text, _ in ends]


def read_run(workdir):
    """Losses and gradient norms [S, 2] of both networks, and what was found in the test cases."""
    logs = [folder / "metrics.jsonl" for folder in (workdir, workdir / "aligned")]
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    steps = [[r["loss"], r["grad_norm"]] for r in records]
    with np.load(workdir / "predictions.npz") as arrays:
        return np.array(steps), dict(arrays), read_results(workdir)


def train_here(root, workdir, **changes):
    """The same, in this process and on its four devices."""
    config = emd.get_config()
    config.update_from_flattened_dict({"data.root": str(root)} | SETTINGS | changes)
    run_train(config, workdir)


def stop_at_first_save(root, workdir):
    """Two steps of the first network."""

    class Stop(Exception):
        pass

    save = checkpoint.save_checkpoint

    def save_and_stop(*args):
        save(*args)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save_and_stop)
        with pytest.raises(Stop):
            train_here(root, workdir)


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train_here(root, workdir)
    return workdir


def test_two_processes_equal_one(root, alone, tmp_path):
    """Also when they go on from where one had got to; only the first writes.

    Of the second network they do all steps.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    stop_at_first_save(root, first)
    texts = succeed([first, second], *make_own_flags(root, **{"report.on": True}))
    assert (first / "report" / "index.html").exists()
    assert "going on from step 2 of 4" in texts[0] and "4 cpu devices in 2 processes" in texts[0]
    assert not second.exists() and "running on" not in texts[1]  # gloo may say a word
    steps, found, results = read_run(first)
    expected_steps, expected, expected_results = read_run(alone)
    assert len(steps) == 4 + 2
    np.testing.assert_allclose(steps, expected_steps, rtol=1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
    for key in ("cases", "landmarks", "best_step"):
        assert results[key] == expected_results[key]
    for row, expected_row in zip(results["stages"], expected_results["stages"], strict=True):
        assert row.pop("stage") == expected_row.pop("stage") and row.keys() == expected_row.keys()
        numbers = [np.hstack(list(each.values())).astype(float) for each in (row, expected_row)]
        np.testing.assert_allclose(*numbers, rtol=1e-4)  # NaN where there is none


def test_cross_validation_with_two_processes(noise_root, noise_crossval, tmp_path):
    """The second fold from the start, and then both of them together."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(noise_crossval, first)
    shutil.rmtree(first / "fold2")
    (first / "results.json").unlink()
    succeed([first, second], *make_flags(noise_root), "--mode=crossval")
    assert not second.exists()
    together, alone = read_results(first), read_results(noise_crossval)
    for part in ("pooled", "external"):
        for key in ("d_mean_mm", "guess_d_mean_mm"):
            assert together[part][key] == pytest.approx(alone[part][key], abs=1e-3)


def test_a_mistake_ends_every_process_with_one_line(root, alone):
    flags = make_own_flags(root, **{"optim.lr": 0.5})
    ends = launch([alone, alone.parent / "second"], *flags)
    for status, _, errors in ends:
        assert status == 1
        assert "optim.lr (0.002 before, 0.5 now)" in errors and "Traceback" not in errors


# ---- in one process ----


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_cluster_that_says_nothing_of_itself_is_one_line(monkeypatch, error):
    def initialize():
        raise error("coordinator_address should be defined")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match="--distributed: expected Slurm, .* got coordinator_add"):
        processes.start_processes()


@pytest.mark.parametrize(
    ("process", "share"), [(0, slice(0, 2)), (2, slice(4, 6)), (3, slice(6, 8))]
)
def test_the_share_of_a_process(monkeypatch, process, share):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert processes.local_share(8) == share
    assert processes.is_first() == (process == 0)


def test_one_process_has_all_and_copies_nothing():
    array = np.arange(3)
    assert processes.is_first() and processes.local_share(8) == slice(0, 8)
    assert processes.from_first(lambda: array) is array
    assert processes.localise(array) is array
