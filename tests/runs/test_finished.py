"""A run that has been trained: what it holds, and one line for a folder that does not hold it."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from noise_runs import LABELS, read_results

from fetal_jax.calibration import Calibration
from fetal_jax.errors import InputError
from fetal_jax.runs import finished
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.search import predict_cases
from fetal_jax.training import checkpoint


@pytest.fixture(scope="module")
def fold(noise_crossval):
    """The folder of a finished run; a test that changes it copies it."""
    return noise_crossval / "fold1"


@pytest.fixture
def copy(fold, tmp_path):
    return Path(shutil.copytree(fold, tmp_path / "run"))


def edit_json(path, change):
    content = run_folder.read_json(path)
    changed = change(content)
    content = content if changed is None else changed
    if isinstance(content, dict):
        run_folder.write_json(path, content)
    else:
        path.write_text(json.dumps(content))


# ---- whether it is finished ----


@pytest.mark.parametrize(("steps", "expected"), [(3, True), (4, True), (5, False)])
def test_a_run_of_four_steps(fold, steps, expected):
    found = finished.read_finished(fold, steps)
    assert found == (read_results(fold) if expected else None)


def test_without_results_a_run_is_not_finished(tmp_path):
    assert finished.read_finished(tmp_path, 1) is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"steps": "x"}', '{"ste'])
def test_results_that_are_none_are_one_line(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError) as caught:
        finished.read_finished(tmp_path, 1)
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/results.json: expected ") and "\n" not in line


# ---- its folders, config and models ----


def test_the_runs_of_a_folder(noise_crossval, fold, tmp_path):
    assert finished.find_runs(fold) == [fold]
    assert finished.find_runs(noise_crossval) == [fold, noise_crossval / "fold2"]
    unfinished = Path(shutil.copytree(noise_crossval, tmp_path / "unfinished"))
    (unfinished / "fold2" / "results.json").unlink()
    with pytest.raises(InputError, match="fold2: expected a finished fold, with results.json"):
        finished.find_runs(unfinished)


def test_the_config_is_the_one_that_was_saved(fold):
    config = finished.open_config(fold)
    saved = run_folder.read_json(fold / "config.json")
    assert json.loads(json.dumps(config.to_dict())) == saved
    with pytest.raises(AttributeError):
        config.seed = 3


def find_best(workdir):
    """Step of the lowest validation error, by the log."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return min(rows, key=lambda row: row["validation_d_mean_mm"])["step"]


def test_the_models_of_a_folder(noise_crossval):
    models = finished.open_models(noise_crossval)
    assert models.record.labels == list(LABELS) and len(models.params) == 2
    saved = run_folder.read_json(noise_crossval / "calibration.json")
    assert models.calibrations.confidence == Calibration(**saved["confidence"])
    for number, params in enumerate(models.params, start=1):
        workdir = noise_crossval / f"fold{number}"
        manager = checkpoint.open_checkpoints(workdir / "checkpoints")
        state = manager.restore(find_best(workdir))
        manager.close()
        assert jax.tree.structure(params) == jax.tree.structure(state["params"])
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(state["params"]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_best_checkpoint_than_was_judged_is_said(copy, capsys):
    finished.open_models(copy)
    assert capsys.readouterr().out == ""
    edit_json(copy / "results.json", lambda results: results.update(best_step=99))
    finished.open_models(copy)
    said = f"note: {copy}/results.json is of step 99, the best checkpoint that is there of step "
    assert capsys.readouterr().out.startswith(said)


def test_which_checkpoint_is_restored(fold):
    detector = finished.open_models(fold).detector
    restored = finished.restore_best(fold, detector)
    assert (restored.best_step, restored.last_step) == (find_best(fold), 4)


def test_test_cases_that_are_gone_are_named(fold, noise_root, tmp_path):
    record = run_folder.read_data_record(fold)
    root = Path(shutil.copytree(noise_root, tmp_path / "data"))
    first, second, *_ = record.splits["test"]
    for name in (first, second):
        (root / "volumes" / f"{name}.nii.gz").unlink()
        for path in (root / "landmarks").glob(f"{name}.*"):
            path.unlink()
    table = (root / "cases.csv").read_text().splitlines()
    table = [row for row in table if row.split(",")[0] not in (first, second)]
    (root / "cases.csv").write_text("\n".join(table) + "\n")
    config = finished.open_config(fold)
    moved = config.to_dict()
    moved["data"]["root"] = str(root)
    with pytest.raises(InputError, match=f"expected the test cases of .* named {first}, {second}"):
        finished.open_tested(finished.check_config(moved), fold, record)


# ---- folders of another version, or broken: one line that says what to do ----


def forget_key(workdir):
    edit_json(workdir / "config.json", lambda c: c["evaluation"].pop("min_confidence") and None)


def add_key(workdir):
    edit_json(workdir / "config.json", lambda c: c["optim"].update(momentum=0.9))


def set_bad_value(workdir):
    edit_json(workdir / "config.json", lambda c: c["loss"].update(name="wing"))


def list_config(workdir):
    edit_json(workdir / "config.json", lambda c: [1, 2])


def cut_config(workdir):
    path = workdir / "config.json"
    path.write_text(path.read_text()[:100])


def forget_config(workdir):
    (workdir / "config.json").unlink()


def forget_splits(workdir):
    edit_json(workdir / "data.json", lambda c: c.pop("splits") and None)


def rename_split(workdir):
    edit_json(workdir / "data.json", lambda c: c["splits"].update(tests=c["splits"].pop("test")))


def add_preprocessing(workdir):
    edit_json(workdir / "data.json", lambda c: c["preprocessing"].update(gamma=2.0))


def change_calibration(workdir):
    run_folder.write_json(workdir / "calibration.json", {"temperature": 2.0})


def widen_network(workdir):
    edit_json(workdir / "config.json", lambda c: c["model"].update(widths=[6]))


def forget_checkpoints(workdir):
    shutil.rmtree(workdir / "checkpoints")


def empty_checkpoints(workdir):
    forget_checkpoints(workdir)
    (workdir / "checkpoints").mkdir()


@pytest.mark.parametrize(
    ("spoil", "file", "words"),
    [
        (forget_key, "config.json", "named evaluation.min_confidence: begin with .*trained anew"),
        (add_key, "config.json", "config.optim.momentum: expected a key that is read"),
        (set_bad_value, "config.json", "config.loss.name: expected one of .*, got 'wing'"),
        (list_config, "config.json", r"expected a file of a run, got '\[1, 2\]'"),
        (cut_config, "config.json", "expected JSON, got"),
        (forget_config, "config.json", "expected a file of a run, got no such file"),
        (forget_splits, "data.json", "expected the data record of a run, got 'splits'"),
        (rename_split, "data.json", "expected the data record of a run, got 'test'"),
        (add_preprocessing, "data.json", "expected the data record of a run, got .*'gamma'"),
        (change_calibration, "calibration.json", "expected the calibration of a run, got"),
        (widen_network, "checkpoints", "expected the network of this config, with .* of shape"),
        (forget_checkpoints, "checkpoints", "expected the checkpoints of a run, got no such"),
        (empty_checkpoints, "checkpoints", "expected a checkpoint, got none: train first"),
    ],
)
def test_a_folder_of_another_version_is_one_line(copy, noise_root, spoil, file, words):
    """Whichever mode opens it to predict."""
    spoil(copy)

    def evaluate():
        config, record = finished.open_config(copy), run_folder.read_data_record(copy)
        predict_cases(config, copy, record, None)

    for use in (lambda: finished.open_models(copy), evaluate):
        with pytest.raises(InputError, match=words) as caught:
            use()
        (line,) = caught.value.problems
        assert line.startswith(f"{copy}/{file}") and "\n" not in line
