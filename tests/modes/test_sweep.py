"""Sweep: each combination once, and values of the config's own type."""

import pytest
from flax.traverse_util import flatten_dict
from noise_runs import make_config

from fetal_jax.errors import InputError
from fetal_jax.modes import sweep


@pytest.fixture
def ran(monkeypatch):
    """(folder, config) of each run that a sweep would make, and the folders that it compares."""
    runs, compared = [], []
    for each in sweep.EACH:
        monkeypatch.setitem(
            sweep.EACH, each, lambda config, folder, each=each: runs.append((each, folder, config))
        )
    monkeypatch.setattr(sweep, "run_compare", lambda *args: compared.append(args))
    return runs, compared


@pytest.mark.parametrize("each", ["train", "crossval"])
def test_each_combination_once_and_then_the_table(ran, tmp_path, each):
    config = make_config("phantom")
    sweep.run_sweep(config, tmp_path, ["loss.lambda2=0.1,0.4", "config.train.batch=4,8"], each)
    runs, compared = ran
    names = [f"loss.lambda2={v},train.batch={b}" for v in (0.1, 0.4) for b in (4, 8)]
    assert [(how, folder) for how, folder, _ in runs] == [(each, tmp_path / n) for n in names]
    values = [(one.loss.lambda2, one.train.batch) for *_, one in runs]
    assert values == [(0.1, 4), (0.1, 8), (0.4, 4), (0.4, 8)]
    assert compared == [([str(tmp_path / name) for name in names], tmp_path / "comparison")]
    changed = {"loss.lambda2", "train.batch"}
    before = flatten_dict(config.to_dict(), sep=".")
    for *_, one in runs:
        after = flatten_dict(one.to_dict(), sep=".")
        assert {key for key in before if before[key] != after[key]} <= changed
    assert (config.loss.lambda2, config.train.batch) == (0.2, 4)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        pytest.param([], "expected --vary", id="nothing"),
        pytest.param(["seed=1", "config.seed=2"], "each key once, got seed, seed", id="key twice"),
        pytest.param(["seed=1,1"], "values that differ, got seed=1 twice", id="value twice"),
        pytest.param(
            ["optim.lr=0.1000001,0.1"], "values that differ, got optim.lr=0.1 twice", id="one name"
        ),
        pytest.param(["optim.lr=0.1,-1.0"], "config.optim.lr: .* got -1.0", id="bad value"),
        pytest.param(["train.batch=4,6"], "config.train.batch: .* got 6", id="devices"),
        pytest.param(
            ["grid.side=8,9", "model.widths=(2,),(2,4)"], "config.grid.side: .* got 9", id="pair"
        ),
    ],
)
def test_no_run_begins_before_all_can(ran, tmp_path, vary, words):
    with pytest.raises(InputError, match=words):
        sweep.run_sweep(make_config("phantom"), tmp_path, vary, "train")
    assert ran == ([], []) and not list(tmp_path.iterdir())
