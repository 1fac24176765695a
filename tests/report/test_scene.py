"""Scenes for the 3D view: the threshold at the landmarks, and what is handed to the page."""

import base64
import json

import numpy as np
import pytest

from fetal_jax.report import scene


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
    truth = np.array([[1.0, 2, 3], [2, 2, 2], [np.nan] * 3, [1, 1, 1]])
    predicted = np.array([[1.0, 2, 4], [2, 2, 2], [3, 3, 3], [np.nan] * 3])
    made = scene.make_viewer_scene(
        "worst",
        volume,
        2.0,
        ["a", "b", "c", "d"],
        truth_vox=truth,
        predicted_vox=predicted,
        visible=np.array([True, False, True, True]),
        confidence=np.array([0.5, 1.0, np.nan, np.nan]),
    )
    voxels = np.frombuffer(base64.b64decode(made["volume"]), np.uint8).reshape(made["shape"])
    assert voxels.shape == volume.shape
    assert voxels[3, 2, 1] == 255 and voxels[0, 0, 5] == 128 and voxels.sum() == 383
    assert made["title"] == "worst" and made["spacing_mm"] == 2.0
    assert made["labels"] == ["a", "b", "c", "d"]
    assert made["truth"] == [[1, 2, 3], [2, 2, 2], None, [1, 1, 1]]
    assert made["predicted"] == [[1, 2, 4], [2, 2, 2], [3, 3, 3], None]
    assert made["visible"] == [True, False, True, True]
    assert made["error_mm"] == [2.0, 0.0, None, None]
    assert made["confidence"] == [0.5, 1.0, None, None]
    json.dumps(made, allow_nan=False)


def test_a_scene_without_landmarks():
    made = scene.make_viewer_scene("empty", np.zeros((4, 4, 4)), 1.0, ["a"])
    assert made["truth"] == made["predicted"] == made["error_mm"] == [None]
    assert made["front"] == [0, 1, 0] and made["up"] == [0, 0, 1]


def test_a_large_volume_becomes_coarser_where_it_is():
    volume = np.zeros((200, 90, 120), np.float32)
    volume[91:109, 20:38, 55:73] = 1.0
    at = np.array([[99.5, 28.5, 63.5]])
    made = scene.make_viewer_scene("large", volume, 0.5, ["a"], truth_vox=at)
    voxels = np.frombuffer(base64.b64decode(made["volume"]), np.uint8).reshape(made["shape"])
    assert made["shape"] == [67, 30, 40] and made["spacing_mm"] == 1.5
    assert len(made["volume"]) < 1.2e6
    # means of blocks of 3, and the smoothing, leave its centre where it is
    centre = (np.argwhere(voxels) * voxels[voxels > 0][:, None]).sum(axis=0) / voxels.sum()
    np.testing.assert_allclose(made["truth"][0], centre, atol=0.02)


def test_what_is_fine_is_smoothed_and_what_is_coarse_is_not():
    """A plane of 1 keeps 1 / (1.2 √(2 π)) of it where the standard deviation is 1.2 voxels."""
    for side, peak in ((64, 1.0), (65, 1 / (1.2 * np.sqrt(2 * np.pi)))):
        volume = np.zeros((side, 5, 5), np.float32)
        volume[32] = 1.0
        made = scene.make_viewer_scene("x", volume, 1.0, [])
        voxels = np.frombuffer(base64.b64decode(made["volume"]), np.uint8)
        assert voxels.max() == pytest.approx(255 * peak, abs=1)


def test_points_for_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected points \[2, 3\].*got \(3, 3\)"):
        scene.make_viewer_scene(
            "x", np.zeros((4, 4, 4)), 1.0, ["a", "b"], truth_vox=np.zeros((3, 3))
        )
    with pytest.raises(ValueError, match=r"expected a volume \[D, H, W\], got \(4, 4\)"):
        scene.make_viewer_scene("x", np.zeros((4, 4)), 1.0, ["a"])


def test_no_title_ends_the_element():
    text = scene.embed_viewer_scenes([{"title": "</script><b>"}])
    assert text.count("<") == 2  # its own two ends
    inner = text.split(">", 1)[1].rsplit("<", 1)[0]
    assert json.loads(inner) == [{"title": "</script><b>"}]
