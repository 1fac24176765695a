"""What a run finds in its test cases: the same each time, beside a guess that is arithmetic."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from noise_runs import LABELS, read_numbers, read_results, read_rows

from fetal_jax.io.markups import read_landmarks
from fetal_jax.modes import evaluate
from fetal_jax.runs.folder import read_json
from fetal_jax.runs.predictions import read_predictions


@pytest.fixture(scope="module")
def fold(noise_crossval):
    return noise_crossval / "fold1"


def test_an_evaluation_is_the_same_again(fold, rename_arrays, tmp_path, capsys):
    """Also of a run whose predictions were saved by an older version."""
    run = Path(shutil.copytree(fold, tmp_path / "run"))
    rename_arrays(run / "predictions.npz")
    evaluate.run_evaluate(run)
    assert read_numbers(run) == read_numbers(fold)
    assert (run / "results.csv").read_bytes() == (fold / "results.csv").read_bytes()
    for name, array in read_predictions(fold / "predictions.npz")._asdict().items():
        found = getattr(read_predictions(run / "predictions.npz"), name)
        np.testing.assert_array_equal(found, array)
    printed = capsys.readouterr().out
    results = read_results(fold)
    assert f"d-mean {results['d_mean_mm']:.2f} mm" in printed
    assert f"--mode=report --workdir={run} writes a page" in printed


def test_a_run_leaves_what_is_promised(fold):
    results = read_results(fold)
    promised = (
        "cases landmarks d_mean_mm d_mean_ci_mm d_sd_mm d_median_mm success_rate success_rate_ci "
        "argmax_d_mean_mm guess_d_mean_mm "
        "per_landmark config seed steps seconds device detector program best_step"
    )
    assert set(promised.split()) <= results.keys()
    assert results["steps"] == 4 and list(results["per_landmark"]) == list(LABELS)
    assert results["config"] == read_json(fold / "config.json")
    assert results["detector"] == "EMD-regularised, ω 0.5" and results["device"] == "4 cpu devices"


def test_the_table_the_files_and_the_numbers_agree(fold):
    results, rows = read_results(fold), read_rows(fold / "results.csv")
    errors = [float(row["error_mm"]) for row in rows]
    assert len(rows) == results["cases"] * len(LABELS) == results["landmarks"]
    assert results["d_mean_mm"] == pytest.approx(np.mean(errors), abs=1e-4)
    for row in rows:
        truth, found = (
            np.array([float(row[f"{kind}_{axis}"]) for axis in "xyz"])
            for kind in ("truth", "prediction")
        )
        assert np.linalg.norm(truth - found) == pytest.approx(float(row["error_mm"]), abs=1e-3)
        saved = read_landmarks(fold / "predictions" / f"{row['case']}.mrk.json")
        np.testing.assert_allclose(saved[row["label"]], found, atol=1e-4)


def test_the_guess_by_hand(fold, noise_root):
    """The mean place of the training cases, on grids that all begin at one place."""
    splits = read_json(fold / "data.json")["splits"]
    truth = {
        split: [read_landmarks(noise_root / "landmarks" / f"{n}.mrk.json") for n in names]
        for split, names in splits.items()
    }
    guess = {label: np.mean([t[label] for t in truth["train"]], axis=0) for label in LABELS}
    off = [np.linalg.norm(t[label] - guess[label]) for t in truth["test"] for label in LABELS]
    assert read_results(fold)["guess_d_mean_mm"] == pytest.approx(np.mean(off), abs=1e-4)
