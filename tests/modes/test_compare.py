"""`--mode=compare` from folders to files."""

import json
import shutil

import pytest
from noise_runs import read_results

from fetal_jax.errors import InputError
from fetal_jax.modes import compare


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
    assert text.count("| EMD-regularised, ω 0.5 |") == 2 and "1.000" in text
    assert "Two annotators are" in text
    for name in ("ela", "landmarks", "ela-external", "landmarks-external"):
        for kind in ("png", "svg"):
            assert (tmp_path / "table" / f"{name}.{kind}").stat().st_size > 5000


def test_what_is_not_finished_is_in_the_table(noise_crossval, tmp_path, capsys):
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(noise_crossval / "config.json", cut)
    compare.run_compare([str(cut)], tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| EMD-regularised, ω 0.5 | not finished: its results.json is missing |" in text
    assert f"note: {cut} is not finished: its results.json is missing" in capsys.readouterr().out
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 2


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="--runs: expected folders of runs"):
        compare.run_compare([], tmp_path)
    with pytest.raises(InputError, match="expected the folder of a run, with config.json"):
        compare.run_compare([str(tmp_path)], tmp_path / "out")
