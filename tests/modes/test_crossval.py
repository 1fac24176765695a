"""Cross-validation: who is tested by which model, and what is left after a kill."""

import shutil

import numpy as np
import pytest
from noise_runs import LABELS, make_config, read_numbers, read_results, read_rows

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.volumes import write_nifti
from fetal_jax.modes import compare, crossval, predict, train
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.training import checkpoint


def test_every_child_is_tested_once_and_the_other_site_by_each_model(noise_crossval):
    rows, outside = (
        read_rows(noise_crossval / "results.csv"),
        read_rows(noise_crossval / "external.csv"),
    )
    assert sorted({row["case"] for row in rows}) == [f"c{i}" for i in range(9)]
    assert len(rows) == 9 * 3
    folds = {row["case"]: row["fold"] for row in rows}
    assert folds["c7"] == folds["c8"] and set(folds.values()) == {"1", "2"}
    listed = {row["case"]: row["fold"] for row in read_rows(noise_crossval / "folds.csv")}
    assert listed == folds | {"c9": "external", "c10": "external"}
    assert {row["case"] for row in outside} == {"c9", "c10"}
    assert [row["fold"] for row in outside] == ["1"] * 6 + ["2"] * 6 + ["ensemble"] * 6


def test_pooled_numbers_are_those_of_the_rows(noise_crossval):
    results = read_results(noise_crossval)
    errors = [float(row["error_mm"]) for row in read_rows(noise_crossval / "results.csv")]
    pooled, external = results["pooled"], results["external"]
    assert pooled["d_mean_mm"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert pooled["cases"] == 9 and pooled["subjects"] == 8 and pooled["landmarks"] == 27
    assert [fold["cases"] for fold in results["folds"]] in ([4, 5], [5, 4])
    rows = read_rows(noise_crossval / "external.csv")
    single = [float(row["error_mm"]) for row in rows if row["fold"] != "ensemble"]
    assert external["d_mean_mm"] == pytest.approx(np.mean(single), abs=1e-4)
    assert (external["cases"], external["models"], external["landmarks"]) == (2, 2, 6)
    # a point counts once, whatever the table
    assert [row["n"] for row in external["per_landmark"].values()] == [2, 2, 2]
    for group in ("per_site", "per_age_group"):
        assert sum(row["n"] for row in external[group].values()) == 6
    assert sum(row["n"] for row in external["confidence"]["bins"]) == 6
    for case in ("c9", "c10"):
        for label in LABELS:
            found = [
                np.array([float(row[f"prediction_{axis}"]) for axis in "xyz"])
                for row in rows
                if (row["case"], row["label"]) == (case, label)
            ]
            np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, atol=2e-4)
    assert external["ensemble"]["cases"] == 2
    assert 1.0 < pooled["annotators"]["apart_mm"] < 4.0  # two readings with an sd of 1 mm an axis


def test_an_interrupted_fold_goes_on_where_it_was(
    noise_root, noise_crossval, tmp_path, monkeypatch, capsys
):
    """Stopped in the second fold, after its first checkpoint."""
    save, saved = checkpoint.save_checkpoint, []

    def save_and_stop(manager, step, state, d_mean_mm):
        save(manager, step, state, d_mean_mm)
        saved.append(step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_checkpoint", save_and_stop)
    workdir = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        crossval.run_crossval(make_config(noise_root), workdir)
    assert saved == [2, 4, 2]
    run = compare.read_run(workdir, compare.find_title)
    assert run.missing == "fold2 of 2 missing"
    monkeypatch.undo()
    capsys.readouterr()
    crossval.run_crossval(make_config(noise_root), workdir)
    assert "going on from step 2 of 4" in capsys.readouterr().out
    assert read_numbers(workdir) == read_numbers(noise_crossval)
    for name in ("results.csv", "external.csv", "folds.csv"):
        assert (workdir / name).read_bytes() == (noise_crossval / name).read_bytes()


def test_the_grid_is_not_made_for_the_external_cases(noise_root, tmp_path, monkeypatch):
    """Those of site b, c9 and c10, are 40 mm wide here, all others 24 mm."""
    root = shutil.copytree(noise_root, tmp_path / "data")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -19.0
    for i in (9, 10):
        voxels = np.full((20,) * 3, i, np.uint8)
        write_nifti(root / "volumes" / f"c{i}.nii.gz", voxels, affine)

    class Seen(Exception):
        pass

    def prepare(config, dataset, held_out):
        raise Seen(config.grid.spacing_mm, [dataset.cases[i].name for i in held_out])

    monkeypatch.setattr(crossval, "prepare_cases", prepare)
    with pytest.raises(Seen) as seen:
        crossval.run_crossval(make_config(root), tmp_path / "run")
    assert seen.value.args == (3.0, ["c9", "c10"])
    with pytest.raises(Seen) as seen:  # with none held out
        crossval.run_crossval(make_config(root, **{"crossval.external_site": ""}), tmp_path / "all")
    assert seen.value.args == (5.0, [])


def test_a_finished_one_says_so(noise_root, noise_crossval, capsys):
    before = read_results(noise_crossval)
    crossval.run_crossval(make_config(noise_root), noise_crossval)
    assert f"{noise_crossval} is finished: 2 folds" in capsys.readouterr().out
    assert read_results(noise_crossval) == before


def test_what_an_older_version_found_outside_is_found_anew(
    noise_root, noise_crossval, rename_arrays, tmp_path, monkeypatch
):
    """Both folds are finished, and what they found in the external cases cannot be read."""
    workdir = tmp_path / "older"
    shutil.copytree(noise_crossval, workdir)
    (workdir / "results.json").unlink()
    rename_arrays(workdir / "fold1" / "external.npz")
    (workdir / "fold2" / "external.npz").write_bytes(b"half a file")
    monkeypatch.setattr(crossval, "train_split", None)  # no fold is trained
    crossval.run_crossval(make_config(noise_root), workdir)
    for fold in ("fold1", "fold2"):
        path = workdir / fold / "external.npz"
        expected = read_predictions(noise_crossval / fold / "external.npz")
        for found, array in zip(read_predictions(path), expected, strict=True):
            np.testing.assert_array_equal(found, array)
    assert read_numbers(workdir) == read_numbers(noise_crossval)


def test_what_an_older_version_found_in_a_fold_s_test_is_refused_with_advice(
    noise_root, noise_crossval, rename_arrays, tmp_path
):
    workdir = tmp_path / "older"
    shutil.copytree(noise_crossval, workdir)
    (workdir / "results.json").unlink()
    rename_arrays(workdir / "fold2" / "predictions.npz")
    words = f"--mode=evaluate --workdir={workdir}/fold2 predicts an older run anew"
    with pytest.raises(InputError, match=words) as caught:
        crossval.run_crossval(make_config(noise_root), workdir)
    assert len(caught.value.problems) == 1


def test_a_split_from_a_file(noise_root, noise_crossval, tmp_path):
    rows = read_rows(noise_crossval / "folds.csv")
    swapped = {"1": "2", "2": "1", "external": "external"}
    path = tmp_path / "mine.csv"
    path.write_text("case,fold\n" + "".join(f"{r['case']},{swapped[r['fold']]}\n" for r in rows))
    config = make_config(noise_root, **{"crossval.split": str(path)})
    dataset = train.open_dataset(config)
    assert crossval.assign_folds(config, dataset) == [swapped[row["fold"]] for row in rows]


def test_folders_of_another_kind_are_refused(noise_root, noise_crossval):
    with pytest.raises(InputError, match="expected a cross-validation's folder, got a training"):
        crossval.run_crossval(make_config(noise_root), noise_crossval / "fold1")
    with pytest.raises(InputError, match="expected a training run's folder, got a cross-val"):
        train.run_train(make_config(noise_root), noise_crossval)
    with pytest.raises(InputError, match="expected the config .* optim.lr"):
        crossval.run_crossval(make_config(noise_root, **{"optim.lr": 0.5}), noise_crossval)


def test_prediction_is_the_mean_of_the_models(noise_root, noise_crossval, tmp_path):
    predict.run_predict(
        noise_crossval, [str(noise_root / "volumes" / "c9.nii.gz")], tmp_path, "mrk.json"
    )
    found = read_landmarks(tmp_path / "c9.mrk.json")
    for row in read_rows(noise_crossval / "external.csv"):
        if row["case"] == "c9" and row["fold"] == "ensemble":
            expected = [float(row[f"prediction_{axis}"]) for axis in "xyz"]
            np.testing.assert_allclose(found[row["label"]], expected, atol=1e-3)
