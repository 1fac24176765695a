"""Which way a face looks, and the level that parts a histogram in two."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fetal_jax.report import face_frame

# a face in mm, d to the right, h forward, w up
FACE = {
    "n": (0, 0, 0), "prn": (0, 9, -13), "sn": (0, 4, -17), "ls": (0, 5, -25),
    "li": (0, 4, -30), "sl": (0, 2, -34), "pg": (0, 2, -38),
    "enL": (-9, -4, -3), "enR": (9, -4, -3), "exL": (-22, -10, -3), "exR": (22, -10, -3),
    "chL": (-10, 0, -28), "chR": (10, 0, -28),
}  # fmt: skip
LABELS, POINTS = list(FACE), np.array(list(FACE.values()), float)
POSES = [Rotation.from_euler("xyz", a, degrees=True).as_matrix() for a in
         [(0, 0, 0), (90, 0, 0), (20, -40, 170), (-130, 60, 45)]]  # fmt: skip


def angle(a, b):
    return np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1)))


@pytest.mark.parametrize("pose", POSES)
def test_a_face_known_by_name_in_any_pose(pose):
    axes = face_frame.guess_axes(POINTS @ pose.T + 20, LABELS)
    # nasion to pogonion leans by 2 in 38
    for axis, expected in zip(axes, pose.T[[0, 2, 1]], strict=True):
        assert angle(axis, expected) < 4
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "no names"])
def test_other_names_face_the_way_they_bulge(pose, paired):
    labels = [k if k[-1] in "LR" else f"p{k}" for k in LABELS] if paired else []
    _, up, front = face_frame.guess_axes(POINTS @ pose.T + 20, labels)
    assert angle(front, pose @ [0, 1, 0]) < 20
    if paired:
        assert angle(up, pose @ [0, 0, 1]) < 20


def test_absent_landmarks_are_left_out():
    points = POINTS.copy()
    points[[LABELS.index(k) for k in ("prn", "exL", "li")]] = np.nan
    _, up, front = face_frame.guess_axes(points, LABELS)
    assert angle(front, [0, 1, 0]) < 4 and angle(up, [0, 0, 1]) < 4


@pytest.mark.parametrize(
    "points",
    [
        np.full((6, 3), np.nan),
        np.zeros((0, 3)),
        np.ones((6, 3)),
        np.indices((2, 2, 2)).reshape(3, 8).T,  # a cube
        np.stack([np.arange(6.0)] * 3, axis=1),  # a line
    ],
    ids=["absent", "none", "one place", "cube", "line"],
)
def test_anterior_where_the_points_show_nothing(points):
    _, up, front = face_frame.guess_axes(points)
    np.testing.assert_array_equal(front, [0, 1, 0])
    np.testing.assert_array_equal(up, [0, 0, 1])


def test_of_a_face_that_looks_up_the_head_is_posterior():
    turned = POINTS @ POSES[1].T  # anterior becomes superior
    _, up, _ = face_frame.guess_axes(turned)
    assert angle(up, [0, -1, 0]) < 20


def test_the_axes_of_a_face_by_its_outer_corners_of_the_eyes():
    pose = Rotation.from_euler("zx", (-130, 70), degrees=True).as_matrix()
    labels = ["n", "pg", "exL", "exR"]
    points = np.array([[0, 20, 15], [0, 18, -20], [-18, 8, 13], [18, 8, 13]]) @ pose.T
    right, up, front = face_frame.find_axes(labels, points, pairs=["ex"]) @ pose
    np.testing.assert_allclose(right, [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(up, np.array([0, 2, 35]) / np.hypot(2, 35), atol=1e-9)
    np.testing.assert_allclose(front, np.array([0, 35, -2]) / np.hypot(2, 35), atol=1e-9)
    assert face_frame.find_axes(labels, points[[0, 1, 1, 0]]) is None
    points[3] = np.nan
    assert face_frame.find_axes(labels, points) is None
    assert face_frame.find_axes(["1", "2", "3", "4"], points) is None


def test_axes_need_every_pair_that_is_asked_for():
    assert face_frame.find_axes(LABELS, POINTS, pairs=["ex", "al"]) is None
    assert face_frame.find_axes(LABELS, POINTS, pairs=["ex", "en"]) is not None
    points = POINTS.copy()
    points[LABELS.index("exR")] = np.nan
    assert face_frame.find_axes(LABELS, points, pairs=["ex"]) is None
    assert face_frame.find_axes(LABELS, points) is not None  # by the other pairs


def test_up_and_right_must_not_run_the_same_way():
    """30 degrees apart: a sine of a half."""
    labels = ["n", "pg", "exR", "exL"]
    right = [0.5, 0, np.cos(np.pi / 6)]
    points = np.array([[0, 0, 1.0], [0, 0, 0], right, [0, 0, 0]])
    assert face_frame.find_axes(labels, points, least_sine=0.49) is not None
    assert face_frame.find_axes(labels, points, least_sine=0.51) is None


def test_points_for_other_labels_are_refused():
    with pytest.raises(ValueError, match="zip"):
        face_frame.find_axes(["n", "pg"], np.zeros((3, 3)))


def test_thresholds_by_hand():
    """Levels 0 0 1 3 3: parted after 0, means of 0 and 7/3; after 1, of 1/3 and 3."""
    score = face_frame.score_thresholds(np.array([2, 1, 0, 2]), np.array([0, 1, 2, 3]))
    # n below x n above x (difference of means)² / 25
    expected = [6 * (7 / 3) ** 2 / 25, 6 * (8 / 3) ** 2 / 25, 6 * (8 / 3) ** 2 / 25, 0.0]
    np.testing.assert_allclose(score, expected, atol=1e-12)


def test_thresholds_of_one_level_are_worth_nothing():
    np.testing.assert_array_equal(face_frame.score_thresholds([0, 9, 0], [0, 1, 2]), [0, 0, 0])
