"""Runs of several seeds as one row: of each point the mean of the seeds' errors."""

import shutil

import numpy as np
import pytest
from noise_runs import change_config, change_errors, read_rows

from fetal_jax.detectors.from_config import find_title
from fetal_jax.report import compared_runs
from fetal_jax.report.compared_runs import compare_runs
from fetal_jax.report.seeds import pool_seeds
from fetal_jax.runs.folder import read_json, write_json


def read_run(folder):
    return compared_runs.read_run(folder, find_title)


@pytest.fixture(scope="module")
def copies(noise_crossval, tmp_path_factory):
    """The cross-validation, the same with seed 1 and errors that are 1 mm larger, and another."""
    root = tmp_path_factory.mktemp("seeds")
    for name, seed, shift in (("a", 0, 0.0), ("b", 1, 1.0), ("c", 0, 0.0)):
        shutil.copytree(noise_crossval, root / name)
        change_errors(root / name, lambda case, shift=shift: shift)
        config = read_json(root / name / "config.json")
        write_json(root / name / "config.json", config | {"seed": seed})
        results = read_json(root / name / "results.json")
        results["pooled"]["d_mean_mm"] += shift
        write_json(root / name / "results.json", results)
    change_config(root / "c", optim__lr=0.5)
    return root


def test_runs_that_differ_in_their_seed_alone_are_one_row(copies):
    a, b, c = (read_run(copies / name) for name in "abc")
    both, other = pool_seeds([a, c, b])
    assert [one.folder for one in both.each] == [a.folder, b.folder] and other is c
    numbers, before = both.numbers["test"], a.numbers["test"]
    assert numbers["d_mean_mm"] == pytest.approx(before["d_mean_mm"] + 0.5)
    assert numbers["seed_sd_mm"] == pytest.approx(1 / np.sqrt(2))
    assert numbers["cases"] == before["cases"]
    for key, error_mm in both.points["test"].errors_mm.items():
        assert error_mm == pytest.approx(a.points["test"].errors_mm[key] + 0.5, abs=1e-3)
    low, high = numbers["d_mean_ci_mm"]
    np.testing.assert_allclose([low, high], np.array(before["d_mean_ci_mm"]) + 0.5, atol=2e-3)
    rows = compare_runs([both, other])["rows"]
    assert rows[0]["seeds"] == [0, 1] and rows[1]["seeds"] == [0]
    assert rows[1]["differs"] == {"optim.lr": 0.5}
    assert rows[0]["test"]["seed_sd_mm"] > 0.7 and rows[1]["test"]["seed_sd_mm"] is None


def test_the_same_seed_twice_and_what_is_not_finished_stay_apart(copies, tmp_path):
    a, b = (read_run(copies / name) for name in "ab")
    shutil.copytree(copies / "b", tmp_path / "cut")
    (tmp_path / "cut" / "results.json").unlink()
    cut = read_run(tmp_path / "cut")
    assert [len(run.each) for run in pool_seeds([a, a, cut, b])] == [2, 0, 0]


def test_each_two_rows_are_tested_and_corrected_together(copies):
    runs = [read_run(copies / name) for name in "abc"]
    table = compare_runs(runs)
    pairs = table["pairs"]["test"]
    assert [pair["rows"] for pair in pairs] == [[0, 1], [0, 2], [1, 2]]
    assert [round(pair["difference_mm"], 3) for pair in pairs] == [-1.0, 0.0, 1.0]
    assert pairs[0]["p_holm"] == pytest.approx(3 * pairs[0]["p"]) and pairs[1]["p_holm"] == 1.0
    assert table["rows"][1]["test"]["p_holm"] == pairs[0]["p_holm"]
    assert len(read_rows(copies / "a" / "results.csv")) >= len(runs[0].points["test"].errors_mm)
