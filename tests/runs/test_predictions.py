"""Predictions: kept, joined, averaged, and as landmark files."""

import io

import numpy as np
import pytest

from fetal_jax.calibration import Calibration, Calibrations
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.runs.predictions import (
    average_predictions,
    join_predictions,
    read_predictions,
    write_landmark_files,
    write_predictions,
)

LABELS = ["L", "R", "nose"]


def test_what_was_written_is_read(tmp_path, make_predictions):
    predictions = make_predictions()
    write_predictions(tmp_path / "predictions.npz", predictions)
    for kept, array in zip(
        read_predictions(tmp_path / "predictions.npz"), predictions, strict=True
    ):
        np.testing.assert_array_equal(kept, array)


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


def test_a_landmark_file_a_case(tmp_path, make_predictions, predicted_mm):
    confidence = np.linspace(0.1, 0.9, 9).reshape(3, 3)
    found = make_predictions(confidence)
    write_landmark_files(tmp_path, ["c0", "c1", "c2"], LABELS, found, min_visible=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"c{i}.mrk.json" for i in range(3)]
    for i in range(3):
        path = tmp_path / f"c{i}.mrk.json"
        points = read_landmarks(path)
        assert list(points) == LABELS
        np.testing.assert_allclose(list(points.values()), predicted_mm[i], atol=1e-9)
        assert f'"confidence {confidence[i, 1]:.3f}"' in path.read_text()


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_what_counts_as_hidden_is_undefined_and_where_it_is_expected_is_said(
    suffix, tmp_path, make_predictions, predicted_mm
):
    found = make_predictions()
    chance = np.full((3, 3), 0.9)
    chance[1, 2] = 0.123
    found = found._replace(visibility=chance, completed_mm=np.full((3, 3, 3), 7.25))
    names = ["c0", "c1", "c2"]
    write_landmark_files(tmp_path, names, LABELS, found, min_visible=0.5, suffix=suffix)
    assert all(np.isfinite(p).all() for p in read_landmarks(tmp_path / f"c0{suffix}").values())
    path = tmp_path / f"c1{suffix}"
    points = read_landmarks(path)
    np.testing.assert_allclose(points[LABELS[1]], predicted_mm[1, 1], atol=1e-6)
    assert "confidence 0.500, visible 0.900" in path.read_text()
    if suffix == ".mrk.json":
        assert list(points) == LABELS and np.isnan(points[LABELS[2]]).all()
        said = "not visible (chance 0.123); expected at RAS 7.25, 7.25, 7.25 mm"
        assert said in path.read_text()
    else:  # which cannot say it
        assert list(points) == LABELS[:2]
