"""Cross-validation, comparison and sweep, over a cohort of noise, with a network of one level."""

import csv
import json
import shutil

import numpy as np
import pytest

from configs import emd
from fetal_jax import compare, crossval, predict, sweep, train
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.io.volumes import write_nifti

SIDE = 12
AFFINE = np.array([[-2.0, 0, 0, 11], [0, -2.0, 0, 11], [0, 0, 2.0, -11], [0, 0, 0, 1]])
LABELS = ("L", "R", "nose")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Nine scans of eight children at site a, two of site b."""
    root, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    rows = ["case,subject,site,gestational_age_weeks,split"]
    for i in range(11):
        voxels = rng.integers(0, 255, (SIDE,) * 3, dtype=np.uint8)
        write_nifti(root / "volumes" / f"c{i}.nii.gz", voxels, AFFINE)
        points = dict(zip(LABELS, rng.uniform(-8, 8, (3, 3)), strict=True))
        write_landmarks(root / "landmarks" / f"c{i}.mrk.json", points)
        for name in ("ann", "bob"):
            moved = {label: p + rng.normal(size=3) for label, p in points.items()}
            write_landmarks(root / "landmarks" / f"c{i}.{name}.mrk.json", moved)
        site = "b" if i > 8 else "a"
        rows.append(f"c{i},s{min(i, 7) if site == 'a' else i},{site},{20 + i},")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    return root


def make_config(root, **changes):
    config = emd.get_config()
    config.update_from_flattened_dict(
        {
            "data.root": str(root),
            "crossval.folds": 2,
            "crossval.external_site": "b",
            "grid.side": 8,
            "model.widths": (2,),
            "augment.on": False,
            "train.batch": 4,
            "train.steps": 4,
            "log.every": 2,
            "log.save_every": 2,
            "evaluation.ela_radius_mm": 20.0,
        }
        | changes
    )
    return config


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """The folder of a cross-validation; a test that changes it copies it."""
    workdir = tmp_path_factory.mktemp("runs") / "emd-crossval"
    crossval.run_crossval(make_config(root), workdir)
    return workdir


def read_results(workdir):
    return json.loads((workdir / "results.json").read_text())


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def drop_times(results):
    for one in (results, *results.get("folds", ())):
        one.pop("seconds")
    return results


def test_every_child_is_tested_once_and_the_other_site_by_each_model(finished):
    rows, outside = read_rows(finished / "results.csv"), read_rows(finished / "external.csv")
    assert sorted({row["case"] for row in rows}) == [f"c{i}" for i in range(9)]
    assert len(rows) == 9 * 3
    folds = {row["case"]: row["fold"] for row in rows}
    assert folds["c7"] == folds["c8"] and set(folds.values()) == {"1", "2"}
    listed = {row["case"]: row["fold"] for row in read_rows(finished / "folds.csv")}
    assert listed == folds | {"c9": "external", "c10": "external"}
    assert {row["case"] for row in outside} == {"c9", "c10"}
    assert [row["fold"] for row in outside] == ["1"] * 6 + ["2"] * 6 + ["ensemble"] * 6


def test_pooled_numbers_are_those_of_the_rows(finished):
    results = read_results(finished)
    errors = [float(row["error_mm"]) for row in read_rows(finished / "results.csv")]
    pooled, external = results["pooled"], results["external"]
    assert pooled["d_mean_mm"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert pooled["cases"] == 9 and pooled["subjects"] == 8 and pooled["landmarks"] == 27
    assert [fold["cases"] for fold in results["folds"]] in ([4, 5], [5, 4])
    rows = read_rows(finished / "external.csv")
    single = [float(row["error_mm"]) for row in rows if row["fold"] != "ensemble"]
    assert external["d_mean_mm"] == pytest.approx(np.mean(single), abs=1e-4)
    assert (external["cases"], external["models"], external["landmarks"]) == (2, 2, 6)
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


def test_an_interrupted_fold_goes_on_where_it_was(root, finished, tmp_path, monkeypatch, capsys):
    """Stopped in the second fold, after its first checkpoint."""
    save, saved = train.checkpoint.save_checkpoint, []

    def save_and_stop(manager, step, state, d_mean_mm):
        save(manager, step, state, d_mean_mm)
        saved.append(step)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.checkpoint, "save_checkpoint", save_and_stop)
    workdir = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        crossval.run_crossval(make_config(root), workdir)
    assert saved == [2, 4, 2]
    run = compare.read_run(workdir)
    assert run.missing == "fold2 of 2 missing"
    monkeypatch.undo()
    capsys.readouterr()
    crossval.run_crossval(make_config(root), workdir)
    assert "going on from step 2 of 4" in capsys.readouterr().out
    assert drop_times(read_results(workdir)) == drop_times(read_results(finished))
    for name in ("results.csv", "external.csv", "folds.csv"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def test_a_finished_one_says_so(root, finished, capsys):
    before = read_results(finished)
    crossval.run_crossval(make_config(root), finished)
    assert f"{finished} is finished: 2 folds" in capsys.readouterr().out
    assert read_results(finished) == before


def test_a_split_from_a_file(root, finished, tmp_path):
    rows = read_rows(finished / "folds.csv")
    swapped = {"1": "2", "2": "1", "external": "external"}
    path = tmp_path / "mine.csv"
    path.write_text("case,fold\n" + "".join(f"{r['case']},{swapped[r['fold']]}\n" for r in rows))
    config = make_config(root, **{"crossval.split": str(path), "train.steps": 2})
    crossval.run_crossval(config, tmp_path / "run")
    assert (tmp_path / "run" / "folds.csv").read_text() == path.read_text()


def test_folders_of_another_kind_are_refused(root, finished):
    with pytest.raises(InputError, match="expected a cross-validation's folder, got a training"):
        crossval.run_crossval(make_config(root), finished / "fold1")
    with pytest.raises(InputError, match="expected a training run's folder, got a cross-val"):
        sweep.EACH["train"](make_config(root), finished)
    with pytest.raises(InputError, match="expected the config .* optim.lr"):
        crossval.run_crossval(make_config(root, **{"optim.lr": 0.5}), finished)


def test_prediction_is_the_mean_of_the_models(root, finished, tmp_path):
    predict.run_predict(finished, [str(root / "volumes" / "c9.nii.gz")], tmp_path, "mrk.json")
    found = read_landmarks(tmp_path / "c9.mrk.json")
    for row in read_rows(finished / "external.csv"):
        if row["case"] == "c9" and row["fold"] == "ensemble":
            expected = [float(row[f"prediction_{axis}"]) for axis in "xyz"]
            np.testing.assert_allclose(found[row["label"]], expected, atol=1e-3)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished)
    (unfinished / "fold2" / "results.json").unlink()
    with pytest.raises(InputError, match="fold2: expected a finished fold"):
        predict.find_runs(unfinished)


# ---- comparison ----


def test_identical_runs_have_a_p_of_one(finished, tmp_path, capsys):
    twin = tmp_path / "twin"
    shutil.copytree(finished, twin)
    compare.run_compare([str(finished), str(twin)], tmp_path / "table")
    table = json.loads((tmp_path / "table" / "comparison.json").read_text())
    first, second = table["rows"]
    assert "p" not in first["test"] and second["test"]["p"] == second["external"]["p"] == 1.0
    assert first["test"]["d_mean_mm"] == read_results(finished)["pooled"]["d_mean_mm"]
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


def test_half_a_millimetre_is_told_apart_and_noise_is_not(finished, tmp_path):
    """Eight children: the smallest p that there can be is 2 / 2^8, times two by Holm."""
    rng = np.random.default_rng(1)
    noise = {f"c{i}": 0.05 * rng.normal() for i in range(9)}
    even, worse = tmp_path / "even", tmp_path / "worse"
    for folder, shift in ((even, 0.0), (worse, 0.5)):
        shutil.copytree(finished, folder)
        change_errors(folder, lambda case, shift=shift: shift + noise[case])
    runs = [compare.read_run(folder) for folder in (finished, even, worse)]
    _, same, other = compare.compare_runs(runs)["rows"]
    assert other["test"]["p"] == pytest.approx(2 / 256) and other["test"]["p_holm"] < 0.02
    assert same["test"]["p_holm"] > 0.05


def test_what_differs_and_what_is_missing_is_said(finished, tmp_path):
    other, cut = tmp_path / "other", tmp_path / "cut"
    shutil.copytree(finished, other)
    config = json.loads((other / "config.json").read_text())
    config["optim"]["lr"], config["loss"]["lambda2"] = 0.5, 0.7
    (other / "config.json").write_text(json.dumps(config))
    shutil.copytree(finished, cut)
    (cut / "results.json").unlink()
    (cut / "fold1" / "results.json").unlink()
    runs = [compare.read_run(folder) for folder in (finished, other, cut)]
    table = compare.compare_runs(runs)
    assert table["rows"][1]["differs"] == {"optim.lr": 0.5, "loss.lambda2": 0.7}
    assert table["rows"][2]["missing"] == "fold1 of 2 missing"
    compare.write_comparison(tmp_path / "out", runs, table)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "not finished: fold1 of 2 missing" in text and "optim.lr 0.5" in text
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 4


def test_rows_with_fewer_landmarks_are_compared_like_for_like(root, finished, tmp_path):
    config = make_config(root, **{"data.labels": ("R", "nose"), "train.steps": 2})
    few = tmp_path / "few"
    crossval.run_crossval(config, few)
    table = compare.compare_runs([compare.read_run(folder) for folder in (few, finished)])
    assert table["labels"] == ["R", "nose"]
    rows = [r for r in read_rows(finished / "results.csv") if r["label"] in ("R", "nose")]
    expected = np.mean([float(row["error_mm"]) for row in rows])
    assert table["rows"][1]["test"]["common"]["d_mean_mm"] == pytest.approx(expected)
    assert table["rows"][0]["test"]["common"]["points"] == 18
    assert "Like for like, on R, nose only" in compare.format_table(table)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="--runs: expected folders of runs"):
        compare.run_compare([], tmp_path)
    with pytest.raises(InputError, match="expected the folder of a run, with config.json"):
        compare.run_compare([str(tmp_path)], tmp_path / "out")


# ---- sweep ----


def test_a_sweep_runs_each_combination_once_and_compares(root, tmp_path, capsys):
    config = make_config(root, **{"train.steps": 2, "crossval.external_site": ""})
    vary = ["loss.lambda2=0.1,0.4", "config.loss.omega=1"]
    sweep.run_sweep(config, tmp_path, vary, "train")
    names = sorted(path.name for path in tmp_path.iterdir())
    first, second = "loss.lambda2=0.1,loss.omega=1", "loss.lambda2=0.4,loss.omega=1"
    assert names == ["comparison", first, second]
    assert json.loads((tmp_path / second / "config.json").read_text())["loss"]["lambda2"] == 0.4
    assert config.loss.lambda2 == 0.2
    table = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert [row["differs"] for row in table["rows"]] == [{}, {"loss.lambda2": 0.4}]
    shutil.rmtree(tmp_path / first)
    capsys.readouterr()
    sweep.run_sweep(config, tmp_path, vary, "train")
    assert capsys.readouterr().out.count("is finished") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.omega=0.5,2", ("loss.omega", [0.5, 2.0])),
        ("train.batch=1,2", ("train.batch", [1, 2])),
        ("loss.name=ce, emd", ("loss.name", ["ce", "emd"])),
        ("config.model.widths=(4,8),(8,16)", ("model.widths", [(4, 8), (8, 16)])),
        ("augment.on=True,False", ("augment.on", [True, False])),
        ("seed=0,1,2", ("seed", [0, 1, 2])),
    ],
)
def test_values_have_the_config_s_type(text, expected):
    assert sweep.parse_vary(emd.get_config(), text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss.omga=1", "expected a key of the config, got 'loss.omga'"),
        ("loss.omega", "expected values of type float"),
        ("loss.omega=a,b", "expected values of type float"),
        ("train.batch=1.5", "expected values of type int"),
        ("augment.on=1", "expected values of type bool"),
    ],
)
def test_values_that_cannot_be_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        sweep.parse_vary(emd.get_config(), text)


def test_a_sweep_of_nothing_is_refused(root, tmp_path):
    with pytest.raises(InputError, match="expected --vary"):
        sweep.run_sweep(make_config(root), tmp_path, [], "train")
