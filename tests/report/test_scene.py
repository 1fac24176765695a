"""Scenes for the 3D view: thresholds, which way a face looks, and what is handed to the page."""

import base64
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fetal_jax.report import scene

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
    front, up = scene.face_axes(POINTS @ pose.T + 20, LABELS)
    # nasion to pogonion leans by 2 in 38
    assert angle(front, pose @ [0, 1, 0]) < 4
    assert angle(up, pose @ [0, 0, 1]) < 4
    assert abs(front @ up) < 1e-9 and np.linalg.norm(front) == pytest.approx(1)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "no names"])
def test_other_names_face_the_way_they_bulge(pose, paired):
    labels = [k if k[-1] in "LR" else f"p{k}" for k in LABELS] if paired else []
    front, up = scene.face_axes(POINTS @ pose.T + 20, labels)
    assert angle(front, pose @ [0, 1, 0]) < 20
    if paired:
        assert angle(up, pose @ [0, 0, 1]) < 20


def test_absent_landmarks_are_left_out():
    points = POINTS.copy()
    points[[LABELS.index(k) for k in ("prn", "exL", "li")]] = np.nan
    front, up = scene.face_axes(points, LABELS)
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
    front, up = scene.face_axes(points)
    np.testing.assert_array_equal(front, [0, 1, 0])
    np.testing.assert_array_equal(up, [0, 0, 1])


def test_of_a_face_that_looks_up_the_head_is_posterior():
    turned = POINTS @ POSES[1].T  # anterior becomes superior
    _, up = scene.face_axes(turned)
    assert angle(up, [0, -1, 0]) < 20


def make_tissue():
    """Fluid of 0.1, a head of 0.45, and half the volume a wall of 0.95."""
    rng = np.random.default_rng(0)
    d, h, w = np.indices((32, 32, 32))
    volume = np.where((d - 16) ** 2 + (h - 6) ** 2 + (w - 16) ** 2 < 25, 0.45, 0.1)
    volume[:, 16:] = 0.95
    return volume + rng.normal(scale=0.02, size=volume.shape)


def test_the_threshold_lies_between_fluid_and_the_tissue_at_the_landmarks():
    volume = make_tissue()
    near = np.array([[16, 10, 16], [14, 10, 18], [18, 10, 14], [np.nan] * 3])
    assert 0.15 * 255 < scene.choose_threshold(volume, near) < 0.4 * 255
    assert 0.4 * 255 <= scene.choose_threshold(volume) < 0.95 * 255


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_volume_has_some_threshold(value):
    assert 4 <= scene.choose_threshold(np.full((4, 4, 4), value)) <= 250


def test_a_scene_holds_the_volume_and_the_landmarks():
    volume = np.zeros((4, 5, 6), np.float32)
    volume[3, 2, 1], volume[0, 0, 5] = 1.0, 0.5
    truth = np.array([[1.0, 2, 3], [2, 2, 2], [0, 0, 0], [1, 1, 1]])
    found = np.array([[1.0, 2, 4], [2, 2, 2], [3, 3, 3], [np.nan] * 3])
    made = scene.make_scene(
        "worst",
        volume,
        2.0,
        ["a", "b", "c", "d"],
        truth_vox=truth,
        found_vox=found,
        present=np.array([True, True, False, True]),
        visible=np.array([True, False, True, True]),
        confidence=np.array([0.5, 1.0, np.nan, np.nan]),
        smooth_vox=0.0,
    )
    voxels = np.frombuffer(base64.b64decode(made["volume"]), np.uint8).reshape(made["shape"])
    assert voxels.shape == volume.shape
    assert voxels[3, 2, 1] == 255 and voxels[0, 0, 5] == 128 and voxels.sum() == 383
    assert made["title"] == "worst" and made["spacing_mm"] == 2.0
    assert made["labels"] == ["a", "b", "c", "d"]
    assert made["truth"] == [[1, 2, 3], [2, 2, 2], None, [1, 1, 1]]
    assert made["found"] == [[1, 2, 4], [2, 2, 2], [3, 3, 3], None]
    assert made["visible"] == [True, False, True, True]
    assert made["error_mm"] == [2.0, 0.0, None, None]
    assert made["confidence"] == [0.5, 1.0, None, None]
    json.dumps(made, allow_nan=False)


def test_a_scene_without_landmarks():
    made = scene.make_scene("empty", np.zeros((4, 4, 4)), 1.0, ["a"])
    assert made["truth"] == made["found"] == made["error_mm"] == [None]
    assert made["front"] == [0, 1, 0] and made["up"] == [0, 0, 1]


def test_a_large_volume_becomes_coarser_where_it_is():
    volume = np.zeros((200, 90, 120), np.float32)
    volume[100:103, 30:33, 60:63] = 1.0
    at = np.array([[101.0, 31.0, 61.0]])
    made = scene.make_scene("large", volume, 0.5, ["a"], truth_vox=at, smooth_vox=0.0)
    voxels = np.frombuffer(base64.b64decode(made["volume"]), np.uint8).reshape(made["shape"])
    assert made["shape"] == [67, 30, 40] and made["spacing_mm"] == 1.5
    assert len(made["volume"]) < 1.2e6
    # blocks of 3: the cube of 100 to 102 lies in 99 to 101 and 102 to 104
    centre = (np.argwhere(voxels) * voxels[voxels > 0][:, None]).sum(axis=0) / voxels.sum()
    np.testing.assert_allclose(made["truth"][0], centre, atol=0.02)


def test_points_for_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected points \[2, 3\].*got \(3, 3\)"):
        scene.make_scene("x", np.zeros((4, 4, 4)), 1.0, ["a", "b"], truth_vox=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"expected a volume \[D, H, W\], got \(4, 4\)"):
        scene.make_scene("x", np.zeros((4, 4)), 1.0, ["a"])


def test_no_title_ends_the_element():
    text = scene.embed_scenes([{"title": "</script><b>"}])
    assert text.count("<") == 2  # its own two ends
    inner = text.split(">", 1)[1].rsplit("<", 1)[0]
    assert json.loads(inner) == [{"title": "</script><b>"}]
