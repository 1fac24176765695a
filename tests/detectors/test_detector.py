"""The decoder on logits that are known, so that every position is arithmetic."""

from functools import partial

import jax
import numpy as np
import pytest

from fetal_jax import heatmaps
from fetal_jax.calibration import Calibration
from fetal_jax.detectors.detector import Trained, find_boxes, find_landmarks

SIDE, SPACING_MM = 11, 2.0
RADII_MM = np.array([1.0, 4.0, 50.0], np.float32)
POINTS = np.array([[[5.3, 4.6, 5.0], [4.0, 6.25, 5.75]], [[5.5, 5.1, 4.9], [6.2, 5.0, 4.4]]])


def squared_distance(points):
    """[..., D, H, W], in voxels, from points [..., 3]."""
    index = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1)
    return ((index - points[..., None, None, None, :]) ** 2).sum(axis=-1)


def find(
    logits,
    *,
    loss_name="ce",
    sharpness=1.0,
    radius_vox=4.0,
    confidence_radius_mm=4.0,
    calibration=None,
    **asked,
):
    seen = []

    def apply(params, x):
        seen.append((params, x.shape))
        return logits

    one = partial(
        find_landmarks,
        apply=apply,
        loss_name=loss_name,
        sharpness=sharpness,
        radius_vox=radius_vox,
        confidence_radius_mm=confidence_radius_mm,
        radii_mm=RADII_MM,
        spacing_mm=SPACING_MM,
    )
    examples = {"volumes": np.zeros((2, SIDE, SIDE, SIDE), np.float32)}
    found = one(Trained("parameters", calibration or Calibration()), examples | asked)
    assert seen == [("parameters", (2, SIDE, SIDE, SIDE, 1))]
    return jax.device_get(found)


def test_gaussian_maps_give_back_their_centres():
    found = find((-squared_distance(POINTS) / (2 * 0.8**2)).astype(np.float32))
    np.testing.assert_allclose(found.points_vox, POINTS, atol=0.01)
    np.testing.assert_array_equal(found.argmax_vox, np.round(POINTS - 1e-6))


def test_two_voxels_in_a_ball():
    """Weights 3 : 1 on neighbours: a quarter of the way; and a far voxel counts for nothing."""
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[..., 5, 5, 5] = np.log(3.0)
    logits[..., 6, 5, 5] = 0.0
    logits[..., 5, 5, 9] = 0.5
    found = find(logits, radius_vox=2.0, confidence_radius_mm=2.5)
    np.testing.assert_allclose(found.points_vox, np.full((2, 2, 3), [5.25, 5, 5]), atol=1e-6)
    np.testing.assert_array_equal(found.argmax_vox, np.full((2, 2, 3), 5.0))
    # the two lie 0.5 and 1.5 mm from the point, the third 8 mm
    share = 4 / (4 + np.exp(0.5))
    np.testing.assert_allclose(found.confidence, np.full((2, 2), share), rtol=1e-5)
    found = find(logits, radius_vox=2.0, confidence_radius_mm=1.0)
    np.testing.assert_allclose(found.confidence, np.full((2, 2), 0.75 * share), rtol=1e-5)


def test_sharpness_is_a_power_of_the_map():
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[..., 5, 5, 5] = np.log(3.0)
    logits[..., 6, 5, 5] = 0.0
    found = find(logits, radius_vox=2.0, sharpness=2.0)  # 9 : 1
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5.1), atol=1e-6)


def test_sigmoid_maps_are_weighted_by_the_sigmoid():
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[..., 5, 5, 5] = 30.0  # both 1 to float32, where a softmax would see e^10 : 1
    logits[..., 6, 5, 5] = 20.0
    found = find(logits, loss_name="sse", radius_vox=2.0)
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5.5), atol=1e-6)
    found = find(logits, loss_name="ce", radius_vox=2.0)
    np.testing.assert_allclose(found.points_vox[..., 0], np.full((2, 2), 5.0), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "width_mm"), [("gaussian", 3.0), ("gaussian", 6.0), ("exponential", 3.0)]
)
def test_the_settings_of_a_target_decode_it(kind, width_mm):
    """A network that learnt its target: off by no more than the grid's asymmetry makes it."""
    distance_mm = SPACING_MM * np.sqrt(squared_distance(POINTS))
    if kind == "gaussian":
        logits = -(distance_mm**2) / (2 * width_mm**2)
    else:
        logits = -distance_mm / (2 * width_mm**2)
    settings = heatmaps.decoder_settings(kind=kind, width_mm=width_mm, spacing_mm=SPACING_MM)
    found = find(logits.astype(np.float32), **settings)
    np.testing.assert_allclose(found.points_vox, POINTS, atol=0.15)


def test_local_accuracy_comes_with_the_true_positions():
    """A false peak 8 mm off is seen from a radius of 50 mm, and not from 4."""
    logits = np.zeros((2, 2, SIDE, SIDE, SIDE), np.float32)
    logits[..., 5, 5, 5], logits[..., 5, 5, 9] = 2.0, 3.0
    targets = np.full((2, 2, 3), 5.0, np.float32)
    found = find(logits, points_vox=targets)
    np.testing.assert_allclose(found.local_mm, np.full((2, 2, 3), [0.0, 0.0, 8.0]), atol=1e-5)
    np.testing.assert_array_equal(found.argmax_vox, np.full((2, 2, 3), [5.0, 5, 9]))
    assert found.local_guess_mm.shape == (2, 2, 3) and (found.local_guess_mm[..., 0] == 0).all()
    assert find(logits).local_mm is None


def test_the_best_box_is_the_answer():
    anchors = np.array([[2.0, 2, 2], [6.0, 2, 2], [6.0, 6, 6]], np.float32)
    outputs = np.zeros((1, 1, 3, 5), np.float32)
    outputs[0, 0, :, 0] = [-1.0, 2.0, 1.0]
    outputs[0, 0, 1, 1:4] = [0.5, 0.0, -0.25]  # of a side of 4 voxels
    found = find_boxes(
        Trained(None),
        {"volumes": np.zeros((1, 8, 8, 8)), "points_vox": np.array([[[6.0, 6.0, 6.0]]])},
        apply=lambda params, x: outputs,
        anchors=anchors,
        side_vox=4.0,
        radii_mm=np.array([1.0, 40.0]),
        spacing_mm=SPACING_MM,
    )
    np.testing.assert_allclose(found.points_vox, [[[8.0, 2.0, 1.0]]])
    np.testing.assert_allclose(found.confidence, [[1 / (1 + np.exp(-2.0))]], rtol=1e-6)
    far = SPACING_MM * np.linalg.norm([2.0, -4.0, -5.0])
    np.testing.assert_allclose(found.local_mm, [[[0.0, far]]], rtol=1e-5)


def test_a_confidence_is_calibrated():
    """A voxel that holds three quarters: 1 + 2 log 3 as a logit."""
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[..., 5, 5, 5], logits[..., 5, 5, 9] = np.log(3.0), 0.0
    found = find(logits, radius_vox=2.0, calibration=Calibration(1.0, 2.0, 99))
    share = 1 / (1 + np.exp(-1.0) / 9)
    np.testing.assert_allclose(found.confidence, np.full((2, 2), share), rtol=1e-4)


@pytest.mark.parametrize("loss_name", ["ce", "sse"])
def test_the_map_that_is_asked_for(loss_name):
    logits = np.full((2, 2, SIDE, SIDE, SIDE), -50.0, np.float32)
    logits[0, 1, 5, 5, 5], logits[0, 1, 5, 5, 9] = 1.0, 0.0
    logits[1, 0, 2, 3, 4] = 7.0
    maps = find(logits, loss_name=loss_name, shown=np.array([1.0, 0.0])).map
    assert maps.shape == (2, SIDE, SIDE, SIDE) and maps.max(axis=(1, 2, 3)).tolist() == [1.0, 1.0]
    second = np.exp(-1.0) if loss_name == "ce" else (1 + np.exp(-1.0)) / 2
    np.testing.assert_allclose(maps[0, 5, 5, 9], second, rtol=1e-5)
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) == (2, 3, 4)
    assert find(logits).map is None


def test_a_detector_s_map_is_the_score_of_each_cell():
    outputs = np.full((1, 2, 8, 5), -3.0, np.float32)
    outputs[0, 1, 5, 0] = 2.0  # the cell 1, 0, 1 of 2 x 2 x 2
    map_ = find_boxes(
        Trained(None),
        {"volumes": np.zeros((1, 4, 4, 4)), "shown": np.array([1])},
        apply=lambda params, x: outputs,
        anchors=np.zeros((8, 3), np.float32),
        side_vox=2.0,
        radii_mm=np.array([1.0]),
        spacing_mm=1.0,
    ).map[0]
    assert map_.shape == (4, 4, 4)
    expected = np.full((4, 4, 4), (1 + np.exp(-2.0)) / (1 + np.exp(3.0)))
    expected[2:, :2, 2:] = 1.0
    np.testing.assert_allclose(map_, expected, rtol=1e-5)
