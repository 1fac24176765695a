"""What a finished run holds: its files, read back, and which program made it."""

import csv
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from fetal_jax.runs import results as run_results
from fetal_jax.runs.point_table import write_points
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.runs.summary import ENSEMBLE

LABELS = ["L", "R", "nose"]


def test_files(tmp_path, prepared, make_tested, summarise):
    part, numbers = make_tested(prepared), summarise(prepared)
    run_results.write_results(tmp_path, numbers, LABELS, [part])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions",
        "predictions.npz",
        "results.csv",
        "results.json",
    ]  # no measurements.csv: of no face
    assert len(list((tmp_path / "predictions").glob("*.mrk.json"))) == 3
    kept = read_predictions(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(kept.points_mm, part.predictions.points_mm)
    assert run_results.read_results(tmp_path) == numbers
    (test,) = run_results.read_parts(tmp_path, numbers).items()
    assert test[0] == "test" and test[1].numbers == numbers and len(test[1].points.case) == 9


def test_what_comes_last_says_that_all_is_there(tmp_path, prepared, make_tested):
    with pytest.raises(ValueError, match="[Nn]a[Nn]|JSON compliant"):
        run_results.write_results(tmp_path, {"a": np.nan}, LABELS, [make_tested(prepared)])
    assert (tmp_path / "results.csv").exists() and not (tmp_path / "results.json").exists()


def test_a_cross_validation_s_parts(tmp_path, prepared, make_tested):
    parts = [make_tested(prepared, fold=fold) for fold in ("1", "2", ENSEMBLE)]
    write_points(tmp_path / "results.csv", LABELS, parts[:2])
    write_points(tmp_path / "external.csv", LABELS, parts)
    numbers = {"pooled": {"a": 1}, "external": {"a": 2, ENSEMBLE: {"a": 3}}, "folds": []}
    parts = run_results.read_parts(tmp_path, numbers)
    assert list(parts) == ["test", "external", ENSEMBLE]
    assert [part.numbers["a"] for part in parts.values()] == [1, 2, 3]
    folds = [sorted(set(part.points.fold)) for part in parts.values()]
    assert folds == [["1", "2"], ["1", "2"], [ENSEMBLE]]
    del numbers["external"]
    assert list(run_results.read_parts(tmp_path, numbers)) == ["test"]


def test_for_a_person(prepared, summarise):
    assert run_results.format_results(summarise(prepared)).splitlines() == [
        "3 test cases, 7 visible landmarks",
        "  d-mean 3.29 mm (95 % interval 2.67 to 3.75), median 3.00 mm",
        "  43 % within 2 mm, 57 % within 3 mm",
        "  best R 2.50 mm, worst nose 4.50 mm",
        "  a guess that ignores the image: 1.71 mm",
    ]
    prepared.spread_mm[:2, 0] = [1.0, 2.0]
    text = run_results.format_results(summarise(prepared))
    assert text.endswith("\n  two annotators are 1.50 mm apart")
    prepared.visible[:] = False
    text = run_results.format_results(summarise(prepared))
    assert text == "3 test cases, none with a visible landmark: nothing measured"


def ask_git(folder, *arguments):
    names = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", *names, *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    run = subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return run.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a package in it, which takes the place of this one."""
    if not shutil.which("git"):
        pytest.skip("expected git on the path")
    package = tmp_path / "fetal_jax"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fetal_jax"\nversion = "7.8"\n')
    ask_git(tmp_path, "init", "--quiet")
    ask_git(tmp_path, "add", ".")
    ask_git(tmp_path, "commit", "--quiet", "--message=first")
    monkeypatch.setattr(run_results, "PACKAGE", package)
    return tmp_path


def test_which_program_in_a_checkout(checkout):
    program = run_results.describe_program()
    commit = ask_git(checkout, "rev-parse", "HEAD")
    assert program["version"] == "7.8" and program["commit"] == commit
    assert list(program) == ["version", "commit", "jax", "jaxlib", "python"]
    json.dumps(program)
    (checkout / "README.md").write_text("of another part of the checkout")
    (checkout / "fetal_jax" / "notes.txt").write_text("of nobody")
    assert run_results.describe_program()["commit"] == commit
    (checkout / "fetal_jax" / "__init__.py").write_text("a = 1\n")
    assert run_results.describe_program()["commit"] == f"{commit}+changes"


def test_which_program_within_a_hook_of_another_repository(checkout, monkeypatch):
    commit = run_results.describe_program()["commit"]
    monkeypatch.setenv("GIT_DIR", str(checkout / "elsewhere"))
    assert run_results.describe_program()["commit"] == commit


@pytest.mark.parametrize("case", ["not committed", "no repository", "no git"])
def test_no_commit_where_there_is_none(checkout, monkeypatch, case):
    if case == "not committed":  # as in a virtual environment within a checkout
        ask_git(checkout, "rm", "--cached", "--quiet", "fetal_jax/__init__.py")
    elif case == "no repository":
        shutil.rmtree(checkout / ".git")
    else:
        monkeypatch.setenv("PATH", str(checkout))
    program = run_results.describe_program()
    assert program["commit"] is None and program["version"] == "7.8"


@pytest.mark.parametrize("text", [None, "[project", '[project]\nname = "other"\nversion = "1"\n'])
def test_the_installed_version_where_no_checkout_has_one(checkout, monkeypatch, text):
    path = checkout / "pyproject.toml"
    path.unlink() if text is None else path.write_text(text)
    monkeypatch.setattr(run_results.metadata, "version", lambda name: f"{name} 9")
    assert run_results.describe_program()["version"] == "fetal_jax 9"


def test_no_version_at_all(checkout, monkeypatch):
    (checkout / "pyproject.toml").unlink()
    monkeypatch.setattr(run_results, "PACKAGE", checkout / "no-such-package-1")
    assert run_results._find_version() is None


def test_rows_of_several_parts(tmp_path, prepared, make_tested):
    parts = [make_tested(prepared, fold=fold) for fold in ("1", "2")]
    run_results.write_results(tmp_path, {}, LABELS, parts)
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["fold"] for row in csv.DictReader(file)] == ["1"] * 9 + ["2"] * 9
    assert read_predictions(tmp_path / "predictions.npz").confidence.shape == (6, 3)
