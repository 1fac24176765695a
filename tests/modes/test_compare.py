"""Comparison: the table, its tests, and what it says of runs that differ or are not finished."""

import csv
import json
import shutil

import numpy as np
import pytest
from noise_runs import make_config, read_results, read_rows

from fetal_jax.errors import InputError
from fetal_jax.modes import compare, crossval
from fetal_jax.report import comparison


def test_identical_runs_have_a_p_of_one(noise_crossval, tmp_path, capsys):
    twin = tmp_path / "twin"
    shutil.copytree(noise_crossval, twin)
    compare.run_compare([str(noise_crossval), str(twin)], tmp_path / "table")
    table = json.loads((tmp_path / "table" / "comparison.json").read_text())
    first, second = table["rows"]
    assert "p" not in first["test"] and second["test"]["p"] == second["external"]["p"] == 1.0
    assert first["test"]["d_mean_mm"] == read_results(noise_crossval)["pooled"]["d_mean_mm"]
    text = (tmp_path / "table" / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert text.count("| EMD-regularised | 0.5 |") == 2 and "1.000" in text
    assert "Two annotators are" in text
    for name in ("ela", "landmarks", "ela-external", "landmarks-external"):
        for kind in ("png", "svg"):
            assert (tmp_path / "table" / f"{name}.{kind}").stat().st_size > 5000


def change_errors(folder, change_mm):
    """Rewrite a run's errors as change_mm(case) would have them."""
    rows = read_rows(folder / "results.csv")
    for row in rows:
        row["error_mm"] = f"{float(row['error_mm']) + change_mm(row['case']):.4f}"
    with (folder / "results.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def test_half_a_millimetre_is_told_apart_and_noise_is_not(noise_crossval, tmp_path):
    """Eight children: the smallest p that there can be is 2 / 2^8, times two by Holm."""
    rng = np.random.default_rng(1)
    noise = {f"c{i}": 0.05 * rng.normal() for i in range(9)}
    even, worse = tmp_path / "even", tmp_path / "worse"
    for folder, shift in ((even, 0.0), (worse, 0.5)):
        shutil.copytree(noise_crossval, folder)
        change_errors(folder, lambda case, shift=shift: shift + noise[case])
    runs = [compare.read_run(folder) for folder in (noise_crossval, even, worse)]
    _, same, other = compare.compare_runs(runs)["rows"]
    assert other["test"]["p"] == pytest.approx(2 / 256) and other["test"]["p_holm"] < 0.02
    assert same["test"]["p_holm"] > 0.05


def test_what_differs_and_what_is_missing_is_said(noise_crossval, tmp_path):
    other, cut = tmp_path / "other", tmp_path / "cut"
    shutil.copytree(noise_crossval, other)
    config = json.loads((other / "config.json").read_text())
    config["optim"]["lr"], config["loss"]["lambda2"] = 0.5, 0.7
    (other / "config.json").write_text(json.dumps(config))
    shutil.copytree(noise_crossval, cut)
    (cut / "results.json").unlink()
    (cut / "fold1" / "results.json").unlink()
    runs = [compare.read_run(folder) for folder in (noise_crossval, other, cut)]
    table = compare.compare_runs(runs)
    assert table["rows"][1]["differs"] == {"optim.lr": 0.5, "loss.lambda2": 0.7}
    assert table["rows"][2]["missing"] == "fold1 of 2 missing"
    comparison.write_comparison(tmp_path / "out", runs, table)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "not finished: fold1 of 2 missing" in text and "optim.lr 0.5" in text
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 4


def test_rows_with_fewer_landmarks_are_compared_like_for_like(noise_root, noise_crossval, tmp_path):
    config = make_config(noise_root, **{"data.labels": ("R", "nose"), "train.steps": 2})
    few = tmp_path / "few"
    crossval.run_crossval(config, few)
    table = compare.compare_runs([compare.read_run(folder) for folder in (few, noise_crossval)])
    assert table["labels"] == ["R", "nose"]
    rows = [r for r in read_rows(noise_crossval / "results.csv") if r["label"] in ("R", "nose")]
    expected = np.mean([float(row["error_mm"]) for row in rows])
    assert table["rows"][1]["test"]["common"]["d_mean_mm"] == pytest.approx(expected)
    assert table["rows"][0]["test"]["common"]["points"] == 18
    assert "Like for like, on R, nose only" in comparison.format_table(table)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="--runs: expected folders of runs"):
        compare.run_compare([], tmp_path)
    with pytest.raises(InputError, match="expected the folder of a run, with config.json"):
        compare.run_compare([str(tmp_path)], tmp_path / "out")
