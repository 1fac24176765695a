"""The validation error over a training, of runs, folds and second networks."""

import json

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.runs.learning_curve import LearningCurve, average_curves, read_curve, still_falls


def write_log(folder, errors):
    folder.mkdir(parents=True)
    lines = [{"step": 5, "loss": 3.0}]
    lines += [{"step": s, "loss": 1.0, "validation_d_mean_mm": e} for s, e in errors.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_curve_of_a_run_is_that_of_the_network_that_answers(tmp_path):
    write_log(tmp_path / "run", {100: 9.0, 200: 4.0})
    curve = read_curve(tmp_path / "run")
    assert curve.steps.tolist() == [100, 200] and curve.d_mean_mm.tolist() == [9.0, 4.0]
    write_log(tmp_path / "run" / "aligned", {300: 2.0})
    assert read_curve(tmp_path / "run").steps.tolist() == [300]


def test_folds_are_averaged_at_the_steps_that_all_have(tmp_path):
    write_log(tmp_path / "fold1", {100: 9.0, 200: 4.0, 300: 2.0})
    write_log(tmp_path / "fold2", {200: 6.0, 300: 4.0})
    curve = read_curve(tmp_path)
    assert curve.steps.tolist() == [200, 300] and curve.d_mean_mm.tolist() == [5.0, 3.0]
    write_log(tmp_path / "fold3", {})
    assert read_curve(tmp_path) is None


def test_no_curve(tmp_path):
    assert read_curve(tmp_path) is None and average_curves([]) is None
    write_log(tmp_path / "run", {})
    assert read_curve(tmp_path / "run") is None
    apart = [LearningCurve(np.array([n]), np.ones(1)) for n in (1, 2)]
    assert average_curves(apart) is None


@pytest.mark.parametrize("text", ["{", "[3]\n", '{"validation_d_mean_mm": 3.0}\n'])
def test_a_log_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match="metrics.jsonl: expected the log of a run, got"):
        read_curve(tmp_path)


@pytest.mark.parametrize(
    ("errors", "falls"),
    [([9, 5, 4, 3], True), ([9, 4, 3, 2.9], False), ([9, 4, 3, 3.5], False), ([9], False)],
)
def test_whether_it_still_falls(errors, falls):
    steps = np.arange(1, len(errors) + 1) * 100
    assert still_falls(LearningCurve(steps, np.array(errors, float))) is falls
