"""Every mode in one process, as a user would type them; and the door that all configs pass."""

import inspect
import json
import shutil
from functools import partial

import pytest
from ml_collections import FrozenConfigDict
from noise_runs import make_config, make_flags, read_numbers, read_results, read_rows

from fetal_jax.cli import MODES
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.modes import agreement, check, crossval, phantom, sweep, train, tune
from fetal_jax.report import surface


def test_every_mode_on_the_cohort_of_noise(
    launch, noise_root, noise_crossval, tmp_path, monkeypatch
):
    monkeypatch.setattr(surface, "have_pyvista", lambda: False)
    run, cross, swept = tmp_path / "run", tmp_path / "cross", tmp_path / "swept"
    flags, done = make_flags(noise_root), set()

    def do(mode, *argv):
        launched = launch(f"--mode={mode}", *argv)
        assert launched.status == 0 and launched.err == "", launched.err
        done.add(mode)
        return launched.out

    assert "4 steps of batch 4" in do("check", *flags, f"--workdir={tmp_path / 'checked'}")
    assert [p.name for p in (tmp_path / "checked").iterdir()] == ["check.png"]

    assert "d-mean" in do("train", *flags, f"--workdir={run}")
    results, rows = read_results(run), read_rows(run / "results.csv")
    assert results["steps"] == 4 and results["landmarks"] == len(rows)
    assert f"{run} is finished: 4 steps" in do("train", *flags, f"--workdir={run}")

    before = read_numbers(run), rows
    do("evaluate", f"--workdir={run}")
    assert before == (read_numbers(run), read_rows(run / "results.csv"))

    printed = do("alignment", f"--workdir={run}")
    assert f"turned by 0° {results['d_mean_mm']:.2f}" in printed

    do("report", f"--workdir={run}")
    page = (run / "report" / "index.html").read_text()
    assert 'id="alignment"' in page
    assert f'id="d_mean_mm">{results["d_mean_mm"]:.2f}<' in page

    do("predict", f"--workdir={run}", f"--volumes={noise_root}/volumes", f"--output={run / 'new'}")
    assert len(list((run / "new").glob("*.mrk.json"))) == 11
    for path in (run / "predictions").glob("*.mrk.json"):
        found, expected = read_landmarks(run / "new" / path.name), read_landmarks(path)
        for label, point in expected.items():
            assert found[label] == pytest.approx(point, abs=1e-3)

    corrected = run / "new" / "c3.mrk.json"
    corrected.write_text(corrected.read_text().replace("\n", "\n "))
    printed = do("adopt", f"--from={run / 'new'}", f"--into={tmp_path / 'adopted'}")
    assert "c3: 3 confirmed" in printed and "10 files that nobody saved" in printed
    volume = (tmp_path / "adopted" / "volumes" / "c3.nii.gz").read_bytes()
    assert volume == (noise_root / "volumes" / "c3.nii.gz").read_bytes()

    do("export", f"--workdir={run}", f"--output={tmp_path / 'model'}")
    assert (tmp_path / "model").stat().st_size > 10_000

    shutil.copytree(noise_crossval, cross)
    assert f"{cross} is finished: 2 folds" in do("crossval", *flags, f"--workdir={cross}")
    pooled = read_results(cross)["pooled"]
    assert pooled["cases"] == 9

    shutil.copytree(run, swept / "loss.lambda2=0.2")  # the config's own value
    printed = do("sweep", *flags, f"--workdir={swept}", "--vary=loss.lambda2=0.2,0.4")
    assert "== all 2 runs" in printed
    assert f"{swept / 'loss.lambda2=0.2'} is finished" in printed
    assert read_results(swept / "loss.lambda2=0.4")["steps"] == 4

    do("compare", f"--runs={run},{cross}", f"--output={tmp_path / 'table'}")
    table = json.loads((tmp_path / "table" / "comparison.json").read_text())
    means = [row["test"]["d_mean_mm"] for row in table["rows"]]
    assert means == [results["d_mean_mm"], pooled["d_mean_mm"]]

    printed = do("agreement", f"--workdir={run}", f"--output={tmp_path / 'observers'}")
    assert "2 observers (ann, bob)" in printed and "The program is farther" in printed
    assert (tmp_path / "observers" / "report" / "index.html").exists()

    few = ["--config.phantom.cases=1", "--config.phantom.spacing_mm=4.0"]
    do("phantom", *flags, *few, f"--output={tmp_path / 'cohort'}")
    assert len(list((tmp_path / "cohort" / "volumes").iterdir())) == 1

    assert done == MODES.keys() - {"tune"}  # which trains more than once: test_tune.py


# ---- the door ----

RUNS = {
    "train": train.run_train,
    "check": check.run_check,
    "crossval": crossval.run_crossval,
    "sweep": partial(sweep.run_sweep, vary=["loss.omega=0.5,2"], each="train"),
    "tune": partial(tune.run_tune, vary=["loss.omega=0.5,2"]),
    "phantom": phantom.run_phantom,
    "agreement": lambda config, output: agreement.run_agreement(config, None, None, output),
}
# what takes a config; known_config: which may be left out
CONFIGS = {name for name, m in MODES.items() if {"config", "known_config"} & {*m.arguments}}
STEPLESS = ("phantom", "agreement")  # which have no batch
READERS = (
    "fetal_jax.data.from_config.read_dataset",
    "fetal_jax.data.from_config.phantom_files.write_cohort",
    "fetal_jax.data.placement.read_header",
    "fetal_jax.data.cases.read_volume",
    "fetal_jax.data.cases.read_case_points",
    "fetal_jax.runs.folder.write_json",
)
BAD = {
    "a value": ({"optim.lr": -1.0}, r"config.optim.lr: .* got -1.0"),
    "of a part that another mode reads": ({"crossval.folds": 1}, "config.crossval.folds: .* got 1"),
    "a contradiction": ({"grid.side": 9, "model.widths": (2, 4)}, "config.grid.side: .* got 9"),
}
BATCHES = {
    "a batch": ({"train.batch": 6}, "config.train.batch: expected a multiple of .* got 6"),
    "a depth": ({"devices.depth": 3}, "config.devices.depth: expected a divisor of .* got 3"),
}


def test_the_door_is_asked_of_every_mode_that_takes_a_config():
    assert RUNS.keys() == CONFIGS


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """A folder that nothing may be written into, where nothing may be read or simulated."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in READERS:
        monkeypatch.setattr(name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "changes", "words"),
    [
        pytest.param(mode, *bad, id=f"{mode}, {name}")
        for mode in RUNS
        for name, bad in (BAD if mode in STEPLESS else BAD | BATCHES).items()
    ],
)
@pytest.mark.parametrize("root", ["phantom", "/data"])
def test_a_bad_config_is_refused_before_anything_is_opened(untouched, mode, root, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        RUNS[mode](make_config(root, **changes), untouched / "run")
    assert len(caught.value.problems) == 1


def test_a_sweep_is_refused_for_its_last_combination_too(untouched):
    config = make_config("phantom")
    with pytest.raises(InputError, match="config.optim.lr"):
        sweep.run_sweep(config, untouched / "run", ["optim.lr=0.1,-1.0"], "train")
    with pytest.raises(InputError, match="config.train.batch: .* got 6"):
        sweep.run_sweep(config, untouched / "run", ["train.batch=4,6"], "crossval")


@pytest.mark.parametrize("mode", RUNS)
def test_behind_the_door_the_config_is_frozen(mode, tmp_path, monkeypatch):
    """And it is another one: what the caller holds stays as it was."""
    seen = []

    class Stop(Exception):
        pass

    def stop(config, *_, **__):
        seen.append(config)
        raise Stop

    for module in (train, check, agreement):
        monkeypatch.setattr(module, "open_dataset", stop)
    monkeypatch.setattr(phantom, "write_phantom", stop)
    config = make_config("phantom")
    before = config.to_dict()
    with pytest.raises(Stop):
        RUNS[mode](config, tmp_path / "run")
    assert isinstance(seen[0], FrozenConfigDict) and config.to_dict() == before


def test_no_mode_but_a_config_s_takes_one():
    """What reads a run takes its folder, which carries what it needs."""
    for name in MODES:
        module = __import__(f"fetal_jax.modes.{name}", fromlist=["_"])
        names = list(inspect.signature(getattr(module, f"run_{name}")).parameters)
        assert ("config" in names) == (name in CONFIGS), name
