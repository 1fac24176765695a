"""Tune: the rate that can learn is chosen; trials are planned, and nobody of a fold is in one."""

import face_runs
import pytest
from noise_runs import read_rows

from fetal_jax.errors import Diverged, InputError
from fetal_jax.modes import tune
from fetal_jax.runs.folder import write_json

CHANGES = {
    "crossval.tuning_share": 0.75,
    "model.widths": (4,),
    "train.batch": 4,
    "train.steps": 60,
    "optim.warmup_steps": 0,
    "log.every": 100,
    "log.save_every": 1000,
}


def test_the_rate_that_can_learn_is_chosen(heads_root, tmp_path):
    """With the other one no weight moves by a digit that counts."""
    config = face_runs.make_config(heads_root, **CHANGES)
    tune.run_tune(config, tmp_path, ["optim.lr=1e-7,2e-2"])
    still, learning = read_rows(tmp_path / "tuning.csv")
    assert (tmp_path / "chosen.txt").read_text() == "--config.optim.lr=0.02\n"
    assert learning["chosen"] == "yes" and not still["chosen"] and not still["full_d_mean_mm"]
    short, full = (float(learning[f"{stage}_d_mean_mm"]) for stage in ("short", "full"))
    assert full < 0.8 * short < 0.7 * float(still["short_d_mean_mm"])


@pytest.fixture
def judged(monkeypatch):
    """Stands for the training: a trial is so many mm off as the table says; what was run."""
    table, ran = {}, []

    def train_split(config, workdir, dataset, prepared, splits, *, report):
        ran.append((workdir.parent.name, config.optim.lr, config.train.steps))
        if table.get(config.optim.lr) is None:
            raise Diverged("step 3: expected a finite loss")
        results = {"steps": config.train.steps, "d_mean_mm": table[config.optim.lr]}
        write_json(workdir / "results.json", results)
        return results

    monkeypatch.setattr(tune, "train_split", train_split)
    return table, ran


def test_all_are_tried_shortly_and_a_third_to_the_end(heads_root, tmp_path, judged, capsys):
    table, ran = judged
    table |= {1e-3: 3.0, 2e-3: 2.0, 4e-3: 2.5, 8e-3: 9.0}  # and 1.0 diverges
    config = face_runs.make_config(heads_root, **CHANGES)
    vary = ["optim.lr=1e-3,2e-3,4e-3,8e-3,1.0"]
    tune.run_tune(config, tmp_path, vary)
    assert ran[:5] == [("short", lr, 15) for lr in (1e-3, 2e-3, 4e-3, 8e-3, 1.0)]
    assert ran[5:] == [("full", lr, 60) for lr in (2e-3, 4e-3)]
    last = read_rows(tmp_path / "tuning.csv")[-1]
    assert last["short_d_mean_mm"] == "diverged" and last["full_d_mean_mm"] == ""
    assert "optim.lr=0.002      2.000     2.000  chosen" in capsys.readouterr().out
    # again: what is finished is not run anew, and other trials need another folder
    tune.run_tune(config, tmp_path, vary)
    assert [one[1] for one in ran[7:]] == [1.0]
    with pytest.raises(InputError, match=r"plan.json: expected the trials that were planned"):
        tune.run_tune(config, tmp_path, ["optim.lr=1e-3"])


def test_it_is_tuned_on_children_that_are_in_no_fold(heads_root, tmp_path, monkeypatch):
    seen = []

    def train_split(config, workdir, dataset, prepared, splits, *, report):
        names = {split: [dataset.cases[i].name for i in one] for split, one in splits.items()}
        seen.append(names)
        assert [case.name for case in prepared.cases] == [case.name for case in dataset.cases]
        return {"d_mean_mm": 1.0}

    monkeypatch.setattr(tune, "train_split", train_split)
    for seed in (0, 1):
        config = face_runs.make_config(heads_root, **CHANGES, seed=seed)
        tune.run_tune(config, tmp_path / str(seed), ["optim.lr=1e-3"])
        checked, dataset = tune.open_run_data(config)
        folds = dict(
            zip(
                [case.name for case in dataset.cases],
                tune.assign_folds(checked, dataset),
                strict=True,
            )
        )
        used = [name for split in seen[-1].values() for name in split]
        assert sorted(used) == sorted(name for name, fold in folds.items() if fold == "tuning")
        assert len(used) == 6 and len(seen[-1]["test"]) == 2 and not seen[-1]["validation"]
    assert seen[0] == seen[-1]  # whatever the seed


@pytest.mark.parametrize(
    ("changes", "vary", "words"),
    [
        ({}, [], "--mode=tune: expected --vary"),
        ({"crossval.tuning_share": 0.0}, ["optim.lr=1e-3"], "tuning_share: expected a share"),
        ({"crossval.tuning_share": 0.3}, ["optim.lr=1e-3"], "tuning_share: expected four subjects"),
        ({}, ["optim.lr=1.0"], "expected a trial that ends with a number, got none"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(heads_root, tmp_path, judged, changes, vary, words):
    with pytest.raises(InputError, match=words):
        tune.run_tune(face_runs.make_config(heads_root, **CHANGES | changes), tmp_path / "t", vary)
