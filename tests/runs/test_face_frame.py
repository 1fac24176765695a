"""The face's frame: of training cases, of found points, and in its file."""

import numpy as np
import pytest
from framed_cases import MIRROR, SHAPE, fit, make_cases, make_config

from fetal_jax.errors import InputError
from fetal_jax.runs import face_frame, folder, second_look


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_each_training_case_lies_in_its_frame(fitted):
    frame, matrices, points = fitted
    np.testing.assert_allclose(frame.shape_mm[MIRROR] * [-1, 1, 1], frame.shape_mm, atol=1e-6)
    back = np.stack(
        [
            np.linalg.solve(m[:3, :3], (p - m[:3, 3]).T).T
            for m, p in zip(matrices, points, strict=True)
        ]
    )
    off = np.linalg.norm(back - frame.shape_mm, axis=-1)
    assert off.mean() < 1.0  # three coordinates of noise of 0.5 mm
    assert frame.box.contains(back).all()
    assert all(side % 8 == 0 for side in frame.box.shape)  # four levels
    assert 0.7 * 32**3 < np.prod(frame.box.shape) < 1.5 * 32**3


def test_found_points_have_the_frame_of_the_true_ones(fitted):
    """Also where a third of them is elsewhere; the share that agrees says so."""
    frame, matrices, points = fitted
    rng = np.random.default_rng(2)
    found = points + rng.normal(0, 0.3, points.shape)
    found[:, :3] += rng.normal(0, 60, (len(points), 3, 3))
    weights = np.full(points.shape[:2], 0.8)
    placed, agreeing, _ = face_frame.fit_frames(frame, found, weights)
    there, expected = (
        np.einsum("nij,lj->nli", m[:, :3, :3], frame.shape_mm) + m[:, None, :3, 3]
        for m in (placed, matrices)
    )
    assert np.linalg.norm(there - expected, axis=-1).mean() < 1.5
    assert 0.6 < agreeing.mean() < 0.7
    _, agreeing, _ = face_frame.fit_frames(frame, rng.normal(0, 60, points.shape), weights)
    assert agreeing.mean() < second_look.LEAST_AGREEING


def test_the_frame_s_file_and_back(fitted, tmp_path):
    frame, _, _ = fitted
    face_frame.write_frame(tmp_path, frame)
    found = face_frame.read_frame(tmp_path)
    np.testing.assert_array_equal(found.shape_mm, frame.shape_mm)
    assert found.box.shape == frame.box.shape
    np.testing.assert_array_equal(found.box.affine, frame.box.affine)
    path = tmp_path / "aligned" / "frame.json"
    np.testing.assert_array_equal(found.shape.modes_mm, frame.shape.modes_mm)
    assert found.shape.noise_mm == frame.shape.noise_mm
    folder.write_json(path, {"shape_mm": []})
    with pytest.raises(InputError, match="frame.json: expected the frame of a run, got KeyError"):
        face_frame.read_frame(tmp_path)


def test_a_case_of_two_landmarks_lies_in_no_frame():
    points = make_cases(4)
    points[1, 2:], points[3] = np.nan, np.nan
    np.testing.assert_array_equal(face_frame.find_posed(points), [0, 2])
    _, matrices = face_frame.fit_training_frame(
        make_config(), points[[0, 2]], np.isfinite(points[[0, 2]]).all(axis=-1), MIRROR
    )
    assert np.isfinite(matrices).all()


def test_two_landmarks_make_no_frame():
    with pytest.raises(InputError, match="config.aligned.on: expected three landmarks or more"):
        face_frame.fit_training_frame(
            make_config(), make_cases(4)[:, :2], np.ones((4, 2), bool), None
        )


def test_only_a_data_set_that_says_what_is_hidden_is_judged(fitted):
    frame, _, _ = fitted
    assert face_frame.expect_landmarks(None, frame) is None
    expected = face_frame.expect_landmarks([0.9] * len(SHAPE), frame)
    np.testing.assert_allclose(frame.box.to_world(expected), frame.shape_mm, atol=1e-9)
