"""Two processes on loopback give what one gives: training, a resume, evaluation, its files."""

import ast
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from noise_runs import write_cohort

from configs import emd
from fetal_jax.modes.crossval import run_crossval
from fetal_jax.modes.train import run_train

LAUNCH = Path(__file__).parents[2] / "launch.py"
# The launcher with so many virtual devices.
START = """
import runpy, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv.pop(1)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SETTINGS = {
    "grid.side": "8",
    "model.widths": "(2,)",
    "train.batch": "4",
    "train.steps": "4",
    "optim.decay": "'constant'",
    "optim.warmup_steps": "0",
    "log.every": "1",
    "log.save_every": "2",
    "data.train_on_completed": "False",
    "evaluation.batch": "1",
    "evaluation.ela_radius_mm": "20.0",
    "report.on": "False",
    "report.surfaces": "False",
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


def launch(root, workdirs, devices, *extra, **changes):
    """One process a folder; the text and exit status of each."""
    settings = {key: value.strip("'") for key, value in (SETTINGS | changes).items()}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for number, workdir in enumerate(workdirs):
        command = [sys.executable, "-c", START, str(devices), str(LAUNCH)]
        command += ["--config=configs/emd.py", f"--config.data.root={root}", *flags, *extra]
        command += [f"--workdir={workdir}"]
        if len(workdirs) > 1:
            command += [f"--coordinator=localhost:{port}", f"--process={number}"]
            command += [f"--processes={len(workdirs)}"]
        processes.append(
            subprocess.Popen(
                command,
                cwd=LAUNCH.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    texts = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *text) for p, text in zip(processes, texts, strict=True)]


def succeed(*args, **kwargs):
    ends = launch(*args, **kwargs)
    for status, _, errors in ends:
        assert status == 0, errors
    return [text for _, text, _ in ends]


def read_numbers(workdir):
    """Losses and gradient norms [S, 2], and what was found in the test cases."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [[r["loss"], r["grad_norm"]] for r in records]
    with np.load(workdir / "predictions.npz") as arrays:
        return np.array(steps), dict(arrays), json.loads((workdir / "results.json").read_text())


def run_here(program, root, workdir, **changes):
    """The same, in this process and on its four devices."""
    config = emd.get_config()
    values = {key: ast.literal_eval(text) for key, text in (SETTINGS | changes).items()}
    config.update_from_flattened_dict(values | {"data.root": str(root)})
    program(config, workdir)


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run_here(run_train, root, workdir)
    return workdir


def test_two_processes_equal_one(root, alone, tmp_path):
    """Also when they are stopped and started again; only the first writes."""
    first, second = tmp_path / "first", tmp_path / "second"
    succeed(root, [first, second], 2, **{"train.steps": "2"})
    texts = succeed(root, [first, second], 2, **{"report.on": "True"})
    assert (first / "report" / "index.html").exists()
    assert "going on from step 2 of 4" in texts[0] and "4 cpu devices in 2 processes" in texts[0]
    assert not second.exists() and "running on" not in texts[1]  # gloo may say a word
    steps, found, results = read_numbers(first)
    expected_steps, expected, expected_results = read_numbers(alone)
    assert len(steps) == 4
    np.testing.assert_allclose(steps, expected_steps, rtol=1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
    for key in ("cases", "landmarks", "best_step"):
        assert results[key] == expected_results[key]


def test_cross_validation_with_two_processes(root, tmp_path):
    settings = {"crossval.folds": "2", "crossval.external_site": "'b'", "train.steps": "2"}
    folders = [tmp_path / "first", tmp_path / "second"]
    succeed(root, folders, 2, "--mode=crossval", **settings)
    run_here(run_crossval, root, tmp_path / "alone", **settings)
    assert not folders[1].exists()
    together, alone = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "alone")
    )
    for part in ("pooled", "external"):
        for key in ("d_mean_mm", "guess_d_mean_mm"):
            assert together[part][key] == pytest.approx(alone[part][key], abs=1e-3)


def test_a_mistake_ends_every_process_with_one_line(root, alone):
    ends = launch(root, [alone, alone.parent / "second"], 2, **{"optim.lr": "0.5"})
    for status, _, errors in ends:
        assert status == 1
        assert "optim.lr (0.002 before, 0.5 now)" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mode=predict", "--distributed"], "--mode=predict: expected one process"),
        (["--coordinator=localhost:1", "--processes=2", "--process=2"], "--process=0 to N-1"),
    ],
)
def test_flags_that_cannot_be(root, tmp_path, flags, words):
    ((status, _, errors),) = launch(root, [tmp_path], 1, *flags)
    assert status == 1 and words in errors and "Traceback" not in errors
