"""Runs that are compared: tests against the reference, and what is said of runs that differ."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from noise_runs import change_config, change_errors, read_results, read_rows, write_rows

from fetal_jax.detectors.from_config import find_title
from fetal_jax.errors import InputError
from fetal_jax.report import compared_runs
from fetal_jax.report.compared_runs import ComparedRun, VisibleErrors, compare_runs
from fetal_jax.runs.folder import write_json
from fetal_jax.runs.results import save_results


def read_run(folder):
    return compared_runs.read_run(folder, find_title)


def test_half_a_millimetre_is_told_apart_and_noise_is_not(noise_crossval, tmp_path):
    """Eight children: the smallest p that there can be is 2 / 2^8, by Holm times three pairs."""
    rng = np.random.default_rng(1)
    noise = {f"c{i}": 0.05 * rng.normal() for i in range(9)}
    even, worse = tmp_path / "even", tmp_path / "worse"
    for folder, shift in ((even, 0.0), (worse, 0.5)):
        shutil.copytree(noise_crossval, folder)
        change_errors(folder, lambda case, shift=shift: shift + noise[case])
    runs = [read_run(folder) for folder in (noise_crossval, even, worse)]
    _, same, other = compare_runs(runs)["rows"]
    assert other["test"]["p"] == pytest.approx(2 / 256) and other["test"][
        "p_holm"
    ] == pytest.approx(6 / 256)
    assert same["test"]["p_holm"] > 0.05


def test_what_differs_and_what_is_missing_is_said(noise_crossval, tmp_path):
    other, cut = tmp_path / "other", tmp_path / "cut"
    shutil.copytree(noise_crossval, other)
    change_config(other, optim__lr=0.5, loss__lambda2=0.7)
    shutil.copytree(noise_crossval, cut)
    (cut / "results.json").unlink()
    (cut / "fold1" / "results.json").unlink()
    table = compare_runs([read_run(folder) for folder in (noise_crossval, other, cut)])
    assert table["reference"] == "EMD-regularised, ω 0.5"
    assert table["rows"][1]["differs"] == {"optim.lr": 0.5, "loss.lambda2": 0.7}
    assert table["rows"][2]["missing"] == "fold1 of 2 missing" and not table["rows"][2]["test"]


def test_the_weights_of_another_loss_do_not_differ(noise_crossval, tmp_path):
    """They are shown between rows of one title; of another loss they say nothing."""
    other = tmp_path / "other"
    shutil.copytree(noise_crossval, other)
    change_config(other, loss__omega=2.0, loss__lambda2=0.7)
    first, second = compare_runs([read_run(noise_crossval), read_run(other)])["rows"]
    assert (first["setting"], second["setting"]) == tuple(
        f"EMD-regularised, ω {omega}" for omega in ("0.5", "2")
    )
    assert second["differs"] == {}


def test_the_reference_is_the_study_s_row_or_else_the_first_that_is_finished(noise_crossval):
    run = read_run(noise_crossval)
    titles = ["SSE", "CE", compared_runs.REFERENCE_TITLE]

    def find_reference(runs):
        table = compare_runs(runs)
        return table["reference"], ["p" in (row["test"] or {}) for row in table["rows"]]

    runs = [
        ComparedRun(run.folder, run.config, title, "", run.results, run.numbers, run.points)
        for title in titles
    ]
    assert find_reference(runs) == (titles[2], [True, True, False])
    assert find_reference(runs[:2]) == ("SSE", [False, True])
    unfinished = ComparedRun(run.folder, run.config, compared_runs.REFERENCE_TITLE, "all missing")
    assert find_reference([unfinished, *runs[:2]]) == ("SSE", [False, False, True])
    assert find_reference([unfinished]) == (None, [False])


def test_rows_with_fewer_landmarks_are_compared_like_for_like(noise_crossval, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(noise_crossval, few)
    results = read_results(few)
    for name in ("results.csv", "external.csv"):
        write_rows(few / name, [r for r in read_rows(few / name) if r["label"] != "L"])
    for part in (results["pooled"], results["external"], results["external"]["ensemble"]):
        del part["per_landmark"]["L"]
    save_results(few, results)
    table = compare_runs([read_run(few), read_run(noise_crossval)])
    assert table["labels"] == ["R", "nose"]
    rows = [r for r in read_rows(noise_crossval / "results.csv") if r["label"] in ("R", "nose")]
    expected = np.mean([float(row["error_mm"]) for row in rows])
    assert table["rows"][1]["test"]["common"]["d_mean_mm"] == pytest.approx(expected)
    assert table["rows"][0]["test"]["common"]["points"] == 18


def test_errors_as_an_array():
    errors = VisibleErrors(
        {("b", "n"): 1.0, ("a", "n"): 2.0, ("a", "ls"): 3.0}, {"a": "s", "b": "t"}
    )
    array, counted, subjects = errors.arrange(errors.errors_mm)
    assert array.tolist() == [[3.0, 2.0], [0.0, 1.0]] and subjects == ["s", "t"]
    assert counted.tolist() == [[True, True], [False, True]]
    array, counted, _ = errors.arrange(key for key in errors.errors_mm if key[0] == "b")
    assert array.tolist() == [[1.0]] and counted.all()


def make_aged(errors_mm, ages):
    """A run of a landmark in a case of each age, three children each."""
    cases = {f"{age}-{n}": error for age, error in zip(ages, errors_mm, strict=True) for n in "abc"}
    points = VisibleErrors(
        {(case, "n"): error for case, error in cases.items()},
        {case: case for case in cases},
        ages={case: case[:-2] for case in cases if case[:-2] != "unknown"},
    )
    return ComparedRun(Path("run"), {}, "a title", points={"test": points})


def test_a_pair_over_ages():
    """Few old children count as much as many young ones, and one of no age does not."""
    ages = ["24-28", "24-28x", "unknown", ">=32"]
    runs = [make_aged([2.0, 2.0, 9.0, 5.0], ages), make_aged([1.0, 1.0, 1.0, 8.0], ages)]
    (pair,) = compare_runs(runs)["pairs"]["test"]
    assert pair["difference_mm"] == pytest.approx((1 + 1 + 8 - 3) / 4)
    assert pair["over_ages_mm"] == pytest.approx((1 + 1 - 3) / 3)
    low, high = pair["over_ages_ci_mm"]
    assert low == pytest.approx(high)  # all children of an age differ alike


def test_a_pair_of_one_age_has_no_mean_over_ages():
    (pair,) = compare_runs([make_aged([2.0], ["<24"]), make_aged([1.0], ["<24"])])["pairs"]["test"]
    assert pair["over_ages_mm"] is None and pair["over_ages_ci_mm"] is None


def test_external_points_are_those_of_each_model(noise_crossval):
    """The mean of two models' errors, and not that of the mean point."""
    run = read_run(noise_crossval)
    rows = [r for r in read_rows(noise_crossval / "external.csv") if r["fold"] != "ensemble"]
    chosen = [float(r["error_mm"]) for r in rows if (r["case"], r["label"]) == ("c9", "L")]
    assert len(chosen) == 2
    points = run.points["external"]
    assert points.errors_mm["c9", "L"] == pytest.approx(np.mean(chosen))
    # a distribution has the errors of both, and still six points
    assert sorted(points.every_mm) == sorted(float(row["error_mm"]) for row in rows)
    described = compare_runs([run])["rows"][0]["external"]
    assert described["points"] == len(points.errors_mm) == len(points.every_mm) // 2 == 6
    assert described["argmax_d_mean_mm"] == run.numbers["external"]["argmax_d_mean_mm"] > 0
    assert run.numbers["external"] == read_results(noise_crossval)["external"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a run, with config.json"):
        read_run(tmp_path)
    write_json(tmp_path / "config.json", {})
    with pytest.raises(InputError, match="config.json: expected a run's config, got KeyError"):
        read_run(tmp_path)


def test_a_run_that_is_not_finished(noise_crossval, tmp_path):
    shutil.copytree(noise_crossval / "fold1", tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    run = read_run(tmp_path / "run")
    assert run.missing == "its results.json is missing" and run.results is None
    shutil.copytree(noise_crossval, tmp_path / "folds")
    (tmp_path / "folds" / "results.json").unlink()
    assert read_run(tmp_path / "folds").missing == "its folds are not pooled"
