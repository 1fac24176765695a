"""One run: stopped and started again it ends with the same numbers, to the last bit."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from noise_runs import make_config, read_numbers, read_results

from configs import emd
from fetal_jax.errors import InputError
from fetal_jax.io.volumes import write_nifti
from fetal_jax.modes import train
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.folder import read_json
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.training import checkpoint

# all that is random in a step, batches that span epochs, and a rate that changes
CHANGES = {
    "augment.on": True,
    "train.steps": 6,
    "optim.warmup_steps": 2,
    "optim.decay": "constant",  # a cosine would be another program for other steps
}


@pytest.fixture(scope="module")
def config(noise_root):
    return make_config(noise_root, **CHANGES)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The folder of a run that nobody stopped; a test that changes it copies it."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train.run_train(config, workdir)
    return workdir


def read_state(workdir):
    manager = checkpoint.open_checkpoints(workdir / "checkpoints")
    state = manager.restore(manager.latest_step())
    manager.close()
    return jax.tree.leaves(state)


def read_metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "waiting_share")} for row in rows]


def test_stopped_and_started_again_it_ends_with_the_same_numbers(
    config, whole, tmp_path, monkeypatch, capsys
):
    """Stopped as soon as the first of three checkpoints was saved."""
    save, saved = checkpoint.save_checkpoint, []

    def save_and_stop(manager, step, state, d_mean_mm):
        save(manager, step, state, d_mean_mm)
        saved.append(step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.run_train(config, tmp_path)
    assert saved == [2] and not (tmp_path / "results.json").exists()
    capsys.readouterr()
    train.run_train(config, tmp_path)
    assert "going on from step 2 of 6" in capsys.readouterr().out
    for a, b in zip(read_state(tmp_path), read_state(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_metrics(tmp_path) == read_metrics(whole)
    assert [row["step"] for row in read_metrics(whole)] == [2, 4, 6]
    for name, array in read_predictions(whole / "predictions.npz")._asdict().items():
        found = getattr(read_predictions(tmp_path / "predictions.npz"), name)
        np.testing.assert_array_equal(found, array, err_msg=name)
    assert read_numbers(tmp_path) == read_numbers(whole)


def test_what_is_random_matters(noise_root, whole, tmp_path):
    """A negative control: with another seed the numbers are others."""
    train.run_train(make_config(noise_root, **CHANGES | {"seed": 1}), tmp_path)
    pairs = zip(read_state(tmp_path), read_state(whole), strict=True)
    assert any(np.shape(a) and np.abs(a - b).max() > 1e-3 for a, b in pairs)


def test_a_finished_run_says_so_and_changes_nothing(config, whole, capsys, monkeypatch):
    monkeypatch.setattr(train, "prepare_cases", None)  # no volume is read
    before = {name: (whole / name).read_bytes() for name in ("results.json", "metrics.jsonl")}
    train.run_train(config, whole)
    printed = capsys.readouterr().out
    assert f"{whole} is finished: 6 steps" in printed
    assert f"d-mean {read_results(whole)['d_mean_mm']:.2f} mm" in printed
    assert before == {name: (whole / name).read_bytes() for name in before}


def test_the_grid_is_not_made_for_the_test_cases(noise_root, whole, tmp_path, monkeypatch):
    """Those that are drawn as a test are 40 mm wide here, all others 24 mm."""
    root = Path(shutil.copytree(noise_root, tmp_path / "data"))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -19.0
    tested = run_folder.read_data_record(whole).splits["test"]
    for name in tested:
        write_nifti(root / "volumes" / f"{name}.nii.gz", np.ones((20,) * 3, np.uint8), affine)

    class Seen(Exception):
        pass

    def prepare(config, dataset, held_out):
        raise Seen(config.grid.spacing_mm, [dataset.cases[i].name for i in held_out])

    monkeypatch.setattr(train, "prepare_cases", prepare)
    with pytest.raises(Seen) as seen:
        train.run_train(make_config(root, **CHANGES), tmp_path / "run")
    assert seen.value.args == (3.0, tested)


def test_annotations_are_looked_at_until_a_run_has_begun(whole, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(train.annotation_check, "describe_worst", lambda *_: looked.append(1))
    config, nothing = emd.get_config(), None
    train.warn_of_annotations(config, nothing, [tmp_path / "new"])
    assert len(looked) == 1
    train.warn_of_annotations(config, nothing, [tmp_path / "new", whole])
    assert len(looked) == 1


def test_more_steps_go_on(noise_root, whole, tmp_path, capsys):
    workdir = Path(shutil.copytree(whole, tmp_path / "longer"))
    train.run_train(make_config(noise_root, **CHANGES | {"train.steps": 8}), workdir)
    assert "going on from step 6 of 8" in capsys.readouterr().out
    assert read_results(workdir)["steps"] == 8
    assert [row["step"] for row in read_metrics(workdir)] == [2, 4, 6, 8]


def test_what_a_run_leaves(config, whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {
        *("config.json", "data.json", "calibration.json", "metrics.jsonl", "results.json"),
        *("results.csv", "predictions.npz", "predictions", "checkpoints", "tensorboard", "card.md"),
    }
    record = run_folder.read_data_record(whole)
    every = [case for cases in record.splits.values() for case in cases]
    assert sorted(every) == sorted(f"c{i}" for i in range(11))
    saved = read_json(whole / "config.json")
    assert saved["grid"]["spacing_mm"] == 3.0 and config.grid.spacing_mm == 0.0  # 24 mm in 8


def test_a_step_that_is_no_number_is_one_line_with_its_cases(noise_root, tmp_path, monkeypatch):
    """Nothing of it is saved: the same command goes on from what was finite."""
    config = make_config(noise_root)
    load = train.loader.load_examples

    def spoil(prepared, step, **options):
        examples = load(prepared, step, **options)
        if step == 2:
            examples.volumes[1] = np.nan
        return examples

    monkeypatch.setattr(train.loader, "load_examples", spoil)
    with pytest.raises(InputError) as caught:
        train.run_train(config, tmp_path)
    (line,) = caught.value.problems
    training = run_folder.read_data_record(tmp_path).splits["train"]
    chosen = train.loader.sample_indices(len(training), 2, batch=4, seed=config.seed)
    names = ", ".join(training[i] for i in chosen)
    assert line == (
        f"step 3: expected a finite loss, got nan, on {names}; a lower config.optim.lr may help"
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["2"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"optim.lr": 0.5}, "config.json: .* optim.lr .* another --workdir", id="lr"),
        pytest.param({"seed": 3}, "config.json: .* seed .* another --workdir", id="seed"),
    ],
)
def test_a_folder_that_was_begun_with_another_config_is_refused(noise_root, whole, changes, words):
    before = (whole / "config.json").read_bytes()
    with pytest.raises(InputError, match=words):
        train.run_train(make_config(noise_root, **CHANGES | changes), whole)
    assert (whole / "config.json").read_bytes() == before


def test_without_validation_the_latest_checkpoint_is_the_best(noise_root, tmp_path, capsys):
    config = make_config(noise_root, **{"data.validation_share": 0.0})
    train.run_train(config, tmp_path)
    assert read_results(tmp_path)["best_step"] == 4
    assert run_folder.read_calibrations(tmp_path) == Calibrations()
    assert "validation d-mean" not in capsys.readouterr().out


def test_mean_error_by_hand(make_prepared):
    """Over what is visible: 3 and 4 mm, the completed one left out."""
    prepared = make_prepared(np.full((2, 2, 3), 3.0), completed=[(1, 1)])
    off = np.array([[[3.0, 0, 0], [0, 4, 0]], [[0, 0, 3], [9, 9, 9]]])
    found = train.mean_error(prepared.points_mm + off, prepared)
    assert found == pytest.approx((3 + 4 + 3) / 3)
    hidden = make_prepared(np.full((1, 1, 3), 3.0), completed=[(0, 0)])
    assert np.isnan(train.mean_error(hidden.points_mm, hidden))
