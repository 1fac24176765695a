"""The program as one more observer: of which cases, and of which it may not be."""

import shutil

import numpy as np
import pytest
from noise_runs import LABELS

from fetal_jax.data.dataset import read_dataset
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.runs.folder import read_data_record
from fetal_jax.runs.observer import read_found


@pytest.fixture(scope="module")
def cases(noise_root):
    return read_dataset(noise_root).cases


@pytest.fixture
def run(noise_crossval, tmp_path):
    """A fold of a cross-validation, as a run of its own."""
    shutil.copytree(noise_crossval / "fold1", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_speaks_of_its_test_cases(run, cases):
    found = read_found(cases, LABELS, workdir=run, files=None)
    tested = read_data_record(run).splits["test"]
    assert [case.name for case, read in zip(cases, found.read, strict=True) if read] == tested
    n = [case.name for case in cases].index(tested[0])
    file = read_landmarks(run / "predictions" / f"{tested[0]}.mrk.json")
    np.testing.assert_array_equal(found.points_mm[n], [file[label] for label in LABELS])
    assert np.isnan(found.points_mm[~found.read]).all()
    assert found.notes == [f"The program's points of {len(tested)} cases are those of {run}."]


def test_each_fold_speaks_of_its_own(noise_crossval, cases):
    found = read_found(cases, LABELS, workdir=noise_crossval, files=None)
    assert found.read.sum() == 9  # all but the external site


def copy_cases(cases, folder, names):
    for case in cases:
        if case.name in names:
            write_landmarks(folder / f"{case.name}.mrk.json", read_landmarks(case.landmarks_path))


def test_files_without_what_was_learned_from(run, cases, tmp_path):
    splits, files = read_data_record(run).splits, tmp_path / "found"
    copy_cases(cases, files, [splits["train"][0], splits["validation"][0], splits["test"][0]])
    found = read_found(cases, LABELS, workdir=run, files=files)
    assert [c.name for c, r in zip(cases, found.read, strict=True) if r] == splits["test"][:1]
    assert f"{run} learned from 2 others, left out" in found.notes[1]
    unknown = read_found(cases, LABELS, workdir=None, files=files)
    assert unknown.read.sum() == 3
    assert "Whether it was trained on these cases is not known" in unknown.notes[1]
    (files / f"{splits['test'][0]}.mrk.json").unlink()
    with pytest.raises(InputError, match="got none but of those that .* learned from"):
        read_found(cases, LABELS, workdir=run, files=files)


def test_a_scan_that_was_learned_from_under_another_name(run, noise_root, tmp_path):
    learned = read_data_record(run).splits["train"][0]
    root, files = tmp_path / "again", tmp_path / "found"
    shutil.copytree(noise_root / "landmarks", root / "landmarks")
    for path in (root / "landmarks").iterdir():
        if not path.name.startswith(f"{learned}."):
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace(learned, "new", 1)))
    (root / "volumes").mkdir()
    shutil.copy(noise_root / "volumes" / f"{learned}.nii.gz", root / "volumes" / "new.nii.gz")
    cases = read_dataset(root).cases
    copy_cases(cases, files, ["new"])
    with pytest.raises(InputError, match="got none but of those that .* learned from"):
        read_found(cases, LABELS, workdir=run, files=files)


def test_test_cases_of_another_data_set(run, noise_root, tmp_path):
    tested, root = read_data_record(run).splits["test"][0], tmp_path / "again"
    shutil.copytree(noise_root, root)
    other = next((noise_root / "volumes").glob("c9*"))
    shutil.copy(other, root / "volumes" / f"{tested}.nii.gz")
    with pytest.raises(InputError, match="expected the scan of this data set, got another's"):
        read_found(read_dataset(root).cases, LABELS, workdir=run, files=None)


def test_a_corrected_file_is_no_program_s(run, cases):
    tested = read_data_record(run).splits["test"]
    path = run / "predictions" / f"{tested[0]}.mrk.json"
    write_landmarks(path, dict.fromkeys(LABELS, np.zeros(3)))
    with pytest.raises(InputError, match="expected the file as predicted.csv beside it knows it"):
        read_found(cases, LABELS, workdir=run, files=None)


def test_nothing_to_read(cases, tmp_path):
    with pytest.raises(ValueError, match="expected a run or a folder"):
        read_found(cases, LABELS, workdir=None, files=None)
    with pytest.raises(InputError, match="expected a finished run, with results.json"):
        read_found(cases, LABELS, workdir=tmp_path, files=None)
    with pytest.raises(
        InputError, match="expected landmark files of cases with readings, got none"
    ):
        read_found(cases, LABELS, workdir=None, files=tmp_path)
