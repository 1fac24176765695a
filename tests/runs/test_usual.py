"""What is usual in a run: learned, widened by its predictions, written and read."""

import json

import numpy as np
import pytest
from face_shapes import MIRROR_INDEX, NOISE_MM, make_faces

from fetal_jax.errors import InputError
from fetal_jax.runs.predictions import make_predictions
from fetal_jax.runs.usual import FILE, learn_usual, read_usual, write_usual


def predict(points_mm, off_mm, seed=5):
    noise = np.random.default_rng(seed).normal(0, off_mm, points_mm.shape)
    found = points_mm + noise
    return make_predictions(found, found, np.full(points_mm.shape[:2], 0.8))


def learn(found, faces=None, min_visible=0.0):
    faces = make_faces() if faces is None else faces
    subjects, visible = [f"s{i}" for i in range(len(faces))], np.ones(faces.shape[:2], bool)
    return learn_usual(faces, subjects, visible, MIRROR_INDEX, found, min_visible=min_visible)


@pytest.fixture(scope="module")
def usual():
    return learn([])


def test_predictions_are_held_to_what_predictions_do(usual):
    """Four times the annotators' noise: so much further, each landmark alike; never nearer."""
    validation = make_faces(n=20, seed=1)
    wide = learn([predict(validation[:12], 4 * NOISE_MM), predict(validation[12:], 4 * NOISE_MM)])
    ratio = wide.sd_mm / usual.sd_mm
    np.testing.assert_allclose(ratio, ratio[0])
    assert 2.5 < ratio[0] < 4.5
    near = learn([predict(make_faces(n=20, seed=1, noise_mm=0.01), 0.0)])
    np.testing.assert_array_equal(near.sd_mm, usual.sd_mm)


def test_what_cannot_be_seen_and_too_few_predictions_say_nothing(usual):
    found = predict(make_faces(n=7, seed=1), 4 * NOISE_MM)
    np.testing.assert_array_equal(learn([found]).sd_mm, usual.sd_mm)
    found = predict(make_faces(n=20, seed=1), 4 * NOISE_MM)
    hidden = found._replace(visibility=np.full(found.mass.shape, 0.2))
    np.testing.assert_array_equal(learn([hidden], min_visible=0.5).sd_mm, usual.sd_mm)


def test_too_few_cases_or_landmarks_leave_no_file(tmp_path, usual):
    assert learn([], make_faces(n=7)) is None
    write_usual(tmp_path, usual)
    write_usual(tmp_path, None)  # as of an earlier start with more cases
    assert not list(tmp_path.iterdir()) and read_usual(tmp_path) is None


def test_it_is_read_as_it_was_written(tmp_path, usual):
    write_usual(tmp_path, usual)
    again = read_usual(tmp_path)
    for ours, theirs in zip((*again.shape, *again[1:]), (*usual.shape, *usual[1:]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_edited_one_is_refused(tmp_path, usual):
    write_usual(tmp_path, usual)
    path = tmp_path / FILE
    content = json.loads(path.read_text())
    content["sd_mm"][0] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="usual.json: expected what the run wrote, got other"):
        read_usual(tmp_path)
    stated = str(pytest.raises(InputError, read_usual, tmp_path).value).split('"sha256": "')[1][:64]
    path.write_text(json.dumps(content | {"sha256": stated}))  # meant
    assert read_usual(tmp_path).sd_mm[0] == 2 * usual.sd_mm[0]
    content["sd_mm"].pop()
    path.write_text(json.dumps(content))
    stated = str(pytest.raises(InputError, read_usual, tmp_path).value).split('"sha256": "')[1][:64]
    path.write_text(json.dumps(content | {"sha256": stated}))
    with pytest.raises(InputError, match="usual.json: expected what is usual in a run, got"):
        read_usual(tmp_path)
