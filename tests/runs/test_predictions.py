"""Predictions: kept, joined and averaged."""

import io

import numpy as np
import pytest

from fetal_jax.calibration import Calibration
from fetal_jax.errors import InputError
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.predictions import (
    average_predictions,
    join_predictions,
    read_predictions,
    write_predictions,
)


def test_what_was_written_is_read(tmp_path, make_predictions):
    predictions = make_predictions()
    write_predictions(tmp_path / "predictions.npz", predictions)
    for kept, array in zip(
        read_predictions(tmp_path / "predictions.npz"), predictions, strict=True
    ):
        np.testing.assert_array_equal(kept, array)


def test_what_is_older_than_radii_has_none(tmp_path, make_predictions):
    arrays = make_predictions()._asdict()
    del arrays["radius_mm"]
    (tmp_path / "predictions.npz").write_bytes(save(**arrays))
    kept = read_predictions(tmp_path / "predictions.npz")
    assert kept.radius_mm.shape == (3, 3) and np.isnan(kept.radius_mm).all()


def save(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(None, "expected the predictions of a run, got", id="no file"),
        pytest.param(b"", "expected the predictions of a run, got", id="empty"),
        pytest.param(b"no archive", "expected the predictions of a run, got", id="text"),
        pytest.param(b"PK\x03\x04 cut off", "expected the predictions of a run, got", id="cut off"),
        pytest.param(save(a=np.ones(2)), "points_mm, .*, got a$", id="others"),
        pytest.param(
            save(found_mm=np.ones(2), argmax_mm=np.ones(2)),
            "points_mm, .*, got found_mm, argmax_mm: --mode=evaluate --workdir=",
            id="older",
        ),
    ],
)
def test_what_is_none_is_refused(tmp_path, content, line):
    path = tmp_path / "predictions.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"predictions.npz: .*{line}") as caught:
        read_predictions(path)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_joined_in_order(make_predictions):
    a, b = make_predictions(), make_predictions(np.zeros((3, 3)))
    joined = join_predictions([a, b])
    assert joined.confidence[:, 0].tolist() == [0.5] * 3 + [0.0] * 3
    assert joined.local_mm.shape == (6, 3, 2)


def test_an_ensemble_is_the_mean_point(make_predictions, predicted_mm):
    a = make_predictions()
    mean = average_predictions(
        [a, a._replace(points_mm=predicted_mm + 2.0, mass=a.mass + 0.5)],
        Calibrations(Calibration(1.0, 1.0)),
    )
    np.testing.assert_allclose(mean.points_mm, predicted_mm + 1.0)
    # half and all: a mean mass of three quarters, a logit of log 3, and 1 more
    np.testing.assert_allclose(mean.confidence, np.full((3, 3), 1 / (1 + np.exp(-1.0) / 3)), 1e-5)
    np.testing.assert_allclose(mean.local_guess_mm, a.local_guess_mm)
    assert np.isnan(mean.local_mm).all()
