"""A run's own files, damaged or edited: the values that were written, or one line that names it."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import damage, edit_text, edit_tree, flip_bits

from fetal_jax.errors import InputError
from fetal_jax.runs import folder
from fetal_jax.runs.finished import find_runs, open_config, read_finished
from fetal_jax.runs.found_files import COLUMNS, find_changed, read_predicted, read_written
from fetal_jax.runs.learning_curve import read_curve
from fetal_jax.runs.measurement_table import read_new_measurements
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.runs.results import read_parts, read_results
from fetal_jax.runs.review_table import read_reviews
from fetal_jax.runs.scan_table import read_scans
from fetal_jax.training import checkpoint

# a run's files take longer to read than a header
MOST = settings.default.max_examples
FEWER = settings(max_examples=min(MOST, 1000))


def list_values(tree):
    """Leaves with their places, as text, so that trees can be compared."""
    if isinstance(tree, dict):
        return {key: list_values(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [list_values(value) for value in tree]
    return list_values(tree.tolist()) if isinstance(tree, np.ndarray) else repr(tree)


def find_difference(found, before, at=""):
    """The first place where two trees of `list_values` differ."""
    if isinstance(found, dict) and isinstance(before, dict) and found.keys() == before.keys():
        pairs = [(found[key], before[key], f"{at}/{key}") for key in found]
    elif isinstance(found, list) and isinstance(before, list) and len(found) == len(before):
        pairs = [(a, b, f"{at}/{i}") for i, (a, b) in enumerate(zip(found, before, strict=True))]
    else:
        return f"{at}: {str(found)[:200]}, not {str(before)[:200]}"
    return next(find_difference(*pair) for pair in pairs if pair[0] != pair[1])


def read_tables(run):
    """What a report is made of: the numbers and the rows they are of."""
    results = read_results(run)
    return [results, read_parts(run, results)]


# name of a file in a run's folder -> how it is read
READERS = {
    "config.json": lambda run: open_config(run).to_dict(),
    "data.json": folder.read_data_record,
    "calibration.json": folder.read_calibrations,
    "results.json": lambda run: [read_tables(run), read_finished(run, 4)],
    "results.csv": read_tables,
    "predictions.npz": lambda run: read_predictions(run / "predictions.npz"),
}


@pytest.fixture(scope="module")
def run(noise_crossval, tmp_path_factory):
    """A copy of the first fold of a cross-validation."""
    return Path(copytree(noise_crossval / "fold1", tmp_path_factory.mktemp("run") / "run"))


def check(run, name, data, read):
    """Read the run with that file, and compare with what was written."""
    path = run / name
    whole = path.read_bytes()
    before = list_values(read(run))
    path.write_bytes(data)
    try:
        found = list_values(read(run))
    except InputError as error:
        for line in error.problems:
            assert str(path) in line and len(line.splitlines()) == 1
        return
    finally:
        path.write_bytes(whole)
    assert found == before, find_difference(found, before)


@FEWER
@given(st.data())
@pytest.mark.parametrize("name", READERS)
def test_damage(run, name, data):
    whole = (run / name).read_bytes()
    check(run, name, data.draw(flip_bits(whole) | damage(whole)), READERS[name])


@FEWER
@given(st.data())
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
def test_edited_values(run, name, data):
    """The digest is among them."""
    content = json.loads((run / name).read_bytes())
    check(run, name, json.dumps(data.draw(edit_tree(content))).encode(), READERS[name])


def try_to_read(run, name, data, read):
    """Whatever comes, it is no traceback."""
    whole = (run / name).read_bytes() if (run / name).exists() else None
    (run / name).write_bytes(data)
    try:
        read(run)
    except InputError as error:
        assert all(len(line.splitlines()) == 1 for line in error.problems)
    finally:
        (run / name).write_bytes(whole) if whole is not None else (run / name).unlink()


PLAIN = {
    "metrics.jsonl": ('{"step": 1, "seconds": 2.5, "validation_d_mean_mm": 3.0}\n' * 3, read_curve),
    "folds.csv": ("case,fold\nc1,1\nc2,2\n", find_runs),
    "predicted.csv": (
        ",".join(COLUMNS) + "\nc1.mrk.json,00ff,L,1,2,3,0.5,0.5,,,,defined,4.5\n",
        lambda run: [read_predicted(run), read_written(run), find_changed([run / "c1.mrk.json"])],
    ),
    "review.csv": (
        "case,label,gain_mm,why\nc1,L,1.5,L is off\nc2,,3.0,\n",
        lambda run: read_reviews(run / "review.csv"),
    ),
    "volumes.csv": ("case,volume\nc1,/scans/c1.nii.gz\n", read_scans),
    "measurements.csv": (
        "case,measurement,name,unit,value,note\nc1,en_en,width,mm,11.5,\n",
        lambda run: read_new_measurements(run / "measurements.csv"),
    ),
}


@FEWER
@given(st.data())
@pytest.mark.parametrize("name", PLAIN)
def test_files_without_a_digest(run, name, data):
    whole, read = PLAIN[name]
    edited = data.draw(edit_text(whole, ",\n:").map(str.encode) | damage(whole.encode()))
    try_to_read(run, name, edited, read)


@settings(max_examples=min(MOST, 500))
@given(data=st.data())
def test_a_checkpoint_that_changed_is_refused(run, data):
    step = max((run / "checkpoints").glob("[0-9]*"))
    files = sorted(p for p in step.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    other = data.draw(flip_bits(whole) | damage(whole)) if whole else b"more"
    path.write_bytes(other)
    try:
        manager = checkpoint.open_checkpoints(run / "checkpoints")
        manager.close()
        assert other == whole or json.loads(other) == json.loads(whole)
    except InputError as error:
        assert str(step) in str(error) and len(str(error).splitlines()) == 1
    finally:
        path.write_bytes(whole)
