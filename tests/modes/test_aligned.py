"""Two looks as a run: trained, stopped, evaluated, used and exported."""

import contextlib
import io
import shutil

import face_runs
import jax.export
import nibabel as nib
import numpy as np
import pytest
from noise_runs import read_numbers, read_results

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.landmarks import LABELS
from fetal_jax.modes import crossval, export, predict, train
from fetal_jax.runs import aligned
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.training import checkpoint

CHANGES = {
    "aligned.on": True,
    "aligned.widths": (2, 4),
    "aligned.steps": 4,
    "train.steps": 4,
    "report.on": False,
}


@pytest.fixture(scope="module", autouse=True)
def trust_any_frame():
    """Four steps find nothing that agrees; the second look counts all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligned, "LEAST_AGREEING", 0.0)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    face_runs.write_cohort(root)
    return root


def run_train(root, workdir, **changes):
    train.run_train(face_runs.make_config(root, **CHANGES | changes), workdir)
    return workdir


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    return run_train(root, tmp_path_factory.mktemp("run") / "run")


def test_each_stage_is_judged(run):
    results = read_results(run)
    rows = results["stages"]
    assert [row["stage"] for row in rows] == [
        "first network",
        "mean shape in the frame",
        "second network, look 1",
        "second network, look 2",
    ]
    assert rows[-1]["d_mean_mm"] == pytest.approx(results["d_mean_mm"], rel=1e-6)
    assert len({row["d_mean_mm"] for row in rows}) == 4
    assert rows[0]["no_frame"] == 0 and 0 <= rows[2]["agreeing"] <= 1
    frame = aligned.read_frame(run)
    assert frame.shape_mm.shape == (19, 3)
    # symmetric, though each head is not in the middle: landmarks.csv is not there, so no pairs
    assert frame.box.contains(frame.shape_mm).all()
    lines = (run / "aligned" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 and (run / "metrics.jsonl").exists()


def test_new_scans_are_found_as_the_evaluation_found_them(run, root, tmp_path):
    predict.run_predict(run, [str(root / "volumes")], tmp_path, "mrk.json")
    found = read_predictions(run / "predictions.npz")
    for i, name in enumerate(("c8", "c9")):  # the test cases
        points = read_landmarks(tmp_path / f"{name}.mrk.json")
        given = np.stack([points[label] for label in face_runs.FACE])
        order = [list(face_runs.FACE).index(label) for label in read_results(run)["per_landmark"]]
        np.testing.assert_allclose(given[order], found.points_mm[i], atol=2e-3)


def test_the_exported_file_finds_what_predict_finds(run, root, tmp_path):
    with contextlib.redirect_stdout(io.StringIO()):
        export.run_export(run, tmp_path / "model")
    find = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes())).call
    predict.run_predict(run, [str(root / "volumes" / "c9.nii.gz")], tmp_path, "mrk.json")
    image = nib.load(root / "volumes" / "c9.nii.gz")
    found = find(np.float32(image.dataobj), np.float32(image.affine))
    assert set(found) == set(LABELS)
    for label, position in read_landmarks(tmp_path / "c9.mrk.json").items():
        np.testing.assert_allclose(found[label]["position_mm"], position, atol=0.02)


@pytest.mark.parametrize("saves", [1, 3], ids=["in the first stage", "in the second"])
def test_stopped_and_started_again_it_ends_with_the_same_numbers(run, root, tmp_path, saves):
    class Stop(Exception):
        pass

    left, save = [saves], checkpoint.save_checkpoint

    def save_and_stop(*args):
        save(*args)
        left[0] -= 1
        if not left[0]:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save_and_stop)
        with pytest.raises(Stop):
            run_train(root, tmp_path)
    assert not (tmp_path / "results.json").exists()
    assert (tmp_path / "aligned").exists() == (saves == 3)
    run_train(root, tmp_path)
    assert read_numbers(tmp_path) == read_numbers(run)


def test_more_steps_of_the_second_network_go_on(run, root, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    run_train(root, workdir, **{"aligned.steps": 6})
    printed = capsys.readouterr().out
    assert "going on from step 4 of 6" in printed and "is finished" not in printed
    run_train(root, workdir, **{"aligned.steps": 6})
    assert "is finished" in capsys.readouterr().out


def test_a_second_network_that_is_not_there_is_one_line(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "aligned" / "checkpoints")
    with pytest.raises(InputError, match="aligned/checkpoints: expected the checkpoints of a run"):
        predict.run_predict(workdir, [str(tmp_path)], tmp_path / "found", "mrk.json")


def test_folds_look_twice_and_their_mean_is_used(root, tmp_path):
    workdir = tmp_path / "folds"
    crossval.run_crossval(face_runs.make_config(root, **CHANGES), workdir)
    results = read_results(workdir)
    assert len(results["folds"]) == 2 and all(len(fold["stages"]) == 4 for fold in results["folds"])
    shapes = [aligned.read_frame(workdir / f"fold{n}").shape_mm for n in (1, 2)]
    assert np.abs(shapes[0] - shapes[1]).max() > 0.01  # each from its own training cases
    predict.run_predict(workdir, [str(root / "volumes" / "c9.nii.gz")], tmp_path, "mrk.json")
    assert len(read_landmarks(tmp_path / "c9.mrk.json")) == 19
