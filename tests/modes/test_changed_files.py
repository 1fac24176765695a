"""A run knows its data by content: what changed since is named, and what to do."""

import shutil

import noise_runs
import pytest
from noise_runs import read_results

from fetal_jax.data.dataset import read_dataset
from fetal_jax.data.file_digests import digest_cases
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.modes import crossval, evaluate, report
from fetal_jax.runs import folder
from fetal_jax.runs.folder import read_data_record, read_json, write_json


@pytest.fixture
def root(noise_root, tmp_path):
    return shutil.copytree(noise_root, tmp_path / "cohort")


@pytest.fixture
def run(noise_crossval, root, tmp_path):
    """A finished fold, of the copied cohort."""
    run = shutil.copytree(noise_crossval / "fold1", tmp_path / "run")
    config = read_json(run / "config.json")
    config["data"]["root"] = str(root)
    write_json(run / "config.json", config)
    return run


def move_landmarks(root, case):
    path = root / "landmarks" / f"{case}.mrk.json"
    points = read_landmarks(path)
    write_landmarks(path, {label: point + 1.0 for label, point in points.items()})


def test_a_corrected_truth_is_named_until_it_is_judged_by(run, root, capsys):
    case = read_data_record(run).splits["test"][0]
    report.run_report(run)
    assert "changed since" not in capsys.readouterr().out
    move_landmarks(root, case)
    report.run_report(run)
    said = f"changed since {run} was judged by it: landmarks of {case}; --mode=evaluate"
    assert f"note: {said}" in capsys.readouterr().out
    assert f"C{said[1:]}" in (run / "report" / "index.html").read_text()
    before = read_results(run)["d_mean_mm"]
    evaluate.run_evaluate(run)
    assert read_results(run)["d_mean_mm"] != before
    report.run_report(run)
    assert "changed since" not in capsys.readouterr().out.split("open ")[-2]


def test_what_was_learned_from_is_named_and_no_run_goes_on_with_another(run, root):
    record = read_data_record(run)
    case = record.splits["train"][0]
    move_landmarks(root, case)
    (said,) = folder.name_changes(run, digest_cases(read_dataset(root).cases, None))
    assert said.startswith(f"changed since {run} learned from it: landmarks of {case}; it goes on")
    digests = record.digests | {case: {"volume": "other", "landmarks": "other"}}
    with pytest.raises(
        InputError, match=f"got another volume of {case}, landmarks of {case}; give"
    ):
        folder.claim_data(run, folder.replace(record, digests=digests))


def test_one_scan_under_two_names_in_two_folds_is_refused(root, noise_crossval, tmp_path):
    config = noise_runs.make_config(root, **{"crossval.split": str(noise_crossval / "folds.csv")})
    rows = noise_runs.read_rows(noise_crossval / "folds.csv")
    first, second = (next(r["case"] for r in rows if r["fold"] == fold) for fold in "12")
    volumes = root / "volumes"
    shutil.copy(volumes / f"{first}.nii.gz", volumes / f"{second}.nii.gz")
    with pytest.raises(InputError, match="each scan in one fold, got the same as .*nii.gz in "):
        crossval.run_crossval(config, tmp_path / "cross")
    assert not list((tmp_path / "cross").glob("fold*/data.json"))
