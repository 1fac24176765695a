"""A run's folder: claimed once, the same when read, and a line for one that is not a run's."""

import json
import subprocess
import sys
from dataclasses import replace

import ml_collections
import pytest

from fetal_jax.calibration import Calibration
from fetal_jax.data.landmark_table import Landmark
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.calibrations import Calibrations

RECORD = run_folder.DataRecord(
    (Landmark("L", "left eye", "R", "the middle"), Landmark("nose")),
    Preprocessing(8, 1.3, (0.5, 99.5), True),
    {"train": ["a", "b"], "validation": [], "test": ["c"]},
    [[1.0, 2.0, 3.5], [0.1, 0.2, 0.3]],
)


def test_data_record_round_trip(tmp_path):
    run_folder.claim_data(tmp_path, RECORD)
    found = run_folder.read_data_record(tmp_path)
    assert found == RECORD
    assert found.labels == ["L", "nose"]


def make_config(**changes):
    config = ml_collections.ConfigDict(
        {
            "seed": 0,
            "model": {"widths": (4, 8)},
            "train": {"steps": 10, "epochs": 0, "batch": 1, "balance_age": False},
            "log": {"every": 5},
        }
    )
    config.update_from_flattened_dict(changes)
    return config


def write_text(path, text):
    """As it is, or with its digest where it is an object."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        run_folder.write_json(path, content)
    else:
        path.write_text(text)


def test_json_is_written_whole_and_without_nan(tmp_path):
    path = tmp_path / "new" / "x.json"
    run_folder.write_json(path, {"a": [1, None]})
    assert run_folder.read_json(path) == {"a": [1, None]}
    with pytest.raises(ValueError, match="[Nn]a[Nn]|JSON compliant"):
        run_folder.write_json(path, {"a": float("nan")})
    assert run_folder.read_json(path) == {"a": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(None, "expected a file of a run, got no such file", id="none"),
        pytest.param('{"a": ', "expected JSON, got", id="half a file"),
        pytest.param("{}", "expected the data record of a run, got", id="empty"),
        pytest.param("[1]", "expected a file of a run, got '[1]'", id="a list"),
        pytest.param(
            json.dumps({"preprocessing": {"percentiles": [1, 2], "sides": 3}, "landmarks": []}),
            "expected the data record of a run, got",
            id="another version",
        ),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path, text, line):
    if text is not None:
        write_text(tmp_path / "data.json", text)
    with pytest.raises(InputError) as caught:
        run_folder.read_data_record(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/data.json: {line}") and "\n" not in problem


def test_a_calibration_that_is_not_there_changes_nothing(tmp_path):
    assert run_folder.read_calibrations(tmp_path) == Calibrations()
    fitted = Calibrations(Calibration(0.5, 0.5, 3), Calibration(0.2, 1.5, 4))
    run_folder.write_calibrations(tmp_path, fitted)
    assert run_folder.read_calibrations(tmp_path) == fitted


def test_a_calibration_of_before_chances_were_judged_opens(tmp_path):
    path = tmp_path / "calibration.json"
    run_folder.write_json(path, {"offset": 0.5, "slope": 0.9, "n": 40})
    assert run_folder.read_calibrations(tmp_path) == Calibrations(Calibration(0.5, 0.9, 40))


@pytest.mark.parametrize(
    "content", ["[]", "[1]", "3", '{"confidence": 0.5}', '{"offset": 1, "t": 2}']
)
def test_what_is_no_calibration_is_one_line(content, tmp_path):
    path = tmp_path / "calibration.json"
    write_text(path, content)
    with pytest.raises(
        InputError, match="calibration.json: expected (a file|the calibration) of a run, got"
    ):
        run_folder.read_calibrations(tmp_path)


def begin(workdir):
    (workdir / "checkpoints" / "5").mkdir(parents=True)


def test_until_training_begins_the_config_may_change(tmp_path):
    run_folder.claim_folder(tmp_path, make_config())
    run_folder.claim_folder(tmp_path, make_config(seed=1))
    assert run_folder.read_json(tmp_path / "config.json")["seed"] == 1
    assert not run_folder.has_begun(tmp_path)


def test_what_a_run_may_be_started_again_with(tmp_path):
    run_folder.claim_folder(tmp_path, make_config())
    begin(tmp_path)
    changes = {"train.steps": 20, "train.epochs": 3, "log.every": 1}
    run_folder.claim_folder(tmp_path, make_config(**changes))
    assert run_folder.read_json(tmp_path / "config.json")["train"]["steps"] == 20


def test_a_config_that_is_none_is_one_line(tmp_path):
    begin(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config.json: expected a file of a run, got '\[1\]'"):
        run_folder.claim_folder(tmp_path, make_config())


def test_a_run_that_is_older_than_a_key_goes_on_as_before(tmp_path):
    run_folder.claim_folder(tmp_path, make_config())
    begin(tmp_path)
    path = tmp_path / "config.json"
    older = run_folder.read_json(path)
    del older["train"]["balance_age"]
    run_folder.write_json(path, older)
    with pytest.raises(InputError, match=r"train.balance_age \(False before, True now\)"):
        run_folder.claim_folder(tmp_path, make_config(**{"train.balance_age": True}))
    run_folder.claim_folder(tmp_path, make_config())
    assert run_folder.read_json(path)["train"]["balance_age"] is False


def test_another_config_is_refused_and_its_keys_are_named(tmp_path):
    run_folder.claim_folder(tmp_path, make_config())
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError) as caught:
        run_folder.claim_folder(tmp_path, make_config(**{"train.batch": 2, "model.widths": (4, 4)}))
    (line,) = caught.value.problems
    assert line == (
        f"{tmp_path}/config.json: expected the config that this run was started with, got other "
        "values of model.widths ([4, 8] before, [4, 4] now), train.batch (1 before, 2 now); "
        "give another --workdir"
    )
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"landmarks": RECORD.landmarks[::-1]}, "labels", id="landmarks"),
        pytest.param(
            {"splits": RECORD.splits | {"train": ["a"], "test": ["b", "c"]}}, "splits", id="split"
        ),
    ],
)
def test_a_resumed_run_keeps_its_data(tmp_path, change, word):
    run_folder.claim_data(tmp_path, RECORD)
    begin(tmp_path)
    run_folder.claim_data(tmp_path, RECORD)
    with pytest.raises(InputError, match=f"expected the data set that this .* other {word}; give"):
        run_folder.claim_data(tmp_path, replace(RECORD, **change))
    assert run_folder.read_data_record(tmp_path) == RECORD


def test_a_folder_is_one_run_s_at_a_time(tmp_path):
    """Also of another process; when that ends, however it ends, it is free."""
    workdir = tmp_path / "run"
    with run_folder.hold(workdir):
        with pytest.raises(
            InputError, match=r"run: expected a folder that no other run is at work"
        ):
            with run_folder.hold(workdir):
                pass
        (workdir / "metrics.jsonl").touch()
    assert [path.name for path in workdir.iterdir()] == ["metrics.jsonl"]
    code = (
        "import sys, time; from pathlib import Path; from fetal_jax.runs.folder import hold\n"
        f"with hold(Path({str(workdir)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"got process {other.pid} on .*: wait for it"):
            with run_folder.hold(workdir):
                pass
        other.kill()
    with run_folder.hold(workdir):
        pass
    with run_folder.hold(tmp_path / "runs" / "mistake"):
        pass
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "results.csv", "metrics.jsonl", "measurements.csv"]
)
def test_a_folder_with_somebody_s_files_is_no_run_s(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=f"expected a new folder, or that of a run, got .*{name}"):
        run_folder.claim_folder(tmp_path, make_config())
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_a_folder_that_was_claimed_and_not_trained_in_is_a_run_s(tmp_path):
    run_folder.claim_folder(tmp_path, make_config())
    (tmp_path / "metrics.jsonl").write_text("")
    run_folder.claim_folder(tmp_path, make_config(seed=3))
