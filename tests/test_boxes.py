"""The detector's pieces against boxes that were worked out by hand."""

import jax
import numpy as np
import pytest

from fetal_jax import boxes

make_anchors = jax.jit(boxes.make_anchors, static_argnums=(0, 1))
assign = jax.jit(boxes.assign_anchors)
balance_weights = jax.jit(boxes.balance_weights)
intersect_over_union = jax.jit(boxes.intersect_over_union)
shape_prior = jax.jit(boxes.shape_prior)


def iou(a, side_a, b, side_b):
    return float(intersect_over_union(*(np.float32(v) for v in (a, side_a, b, side_b))))


@pytest.mark.parametrize(
    ("b", "side_b", "expected"),
    [
        pytest.param([0, 0, 0], 4, 1.0, id="same"),
        pytest.param([2, 0, 0], 4, 32 / 96, id="half of it along one axis"),
        pytest.param([2, 2, 0], 4, 16 / 112, id="a quarter"),
        pytest.param([1, -1, 0], 2, 8 / 64, id="inside"),
        pytest.param([4, 0, 0], 4, 0.0, id="touching"),
        pytest.param([9, 9, 9], 4, 0.0, id="apart"),
        pytest.param([3, 0, 0], 4, 16 / 112, id="a slice"),
    ],
)
def test_iou_by_hand(b, side_b, expected):
    assert iou([0, 0, 0], 4, b, side_b) == pytest.approx(expected)
    assert iou(b, side_b, [0, 0, 0], 4) == pytest.approx(expected)


def test_anchors_are_the_middles_of_their_cells():
    anchors = make_anchors((4, 8, 4), 4)
    np.testing.assert_allclose(anchors, [[1.5, 1.5, 1.5], [1.5, 5.5, 1.5]])
    assert len(make_anchors((8, 8, 8), 1)) == 512


def test_boxes_from_outputs():
    outputs = np.float32([[7.0, 0.5, 0.0, -0.25, np.log(2.0)], [0.0, 0.0, 0.0, 0.0, 99.0]])
    found = jax.jit(boxes.decode_boxes)(outputs, np.float32([[1.0, 2, 3], [0.0, 0, 0]]), 8.0)
    np.testing.assert_allclose(found.centre, [[5.0, 2.0, 1.0], [0, 0, 0]])
    np.testing.assert_allclose(found.side, [16.0, 8 * np.e**2], rtol=1e-6)
    np.testing.assert_allclose(found.score, [7.0, 0.0])


@pytest.mark.parametrize("seed", range(10))
def test_every_target_has_a_positive_anchor(seed):
    """Also with cells so coarse that none reaches an IoU of 0.5, and outside the volume."""
    rng = np.random.default_rng(seed)
    stride = (2, 4, 8)[seed % 3]
    anchors = np.asarray(make_anchors((16, 16, 16), stride))
    for target in rng.uniform(-6, 22, (20, 3)).astype(np.float32):
        positive, negative = map(np.asarray, assign(anchors, target, 6.0))
        assert positive.any() and not (positive & negative).any()
        off = np.abs(anchors - target).max(axis=1)
        # outside the volume, the nearest; inside, one whose cell is the target's
        assert off[positive].min() <= off.min() + stride


def test_assignment_by_hand():
    """Cubes of 8 along a line: IoU 1, 1/3 (neither), 0 (negative)."""
    anchors = np.float32([[0.0, 0, 0], [4.0, 0, 0], [8.0, 0, 0], [2.0, 0, 0]])
    positive, negative = assign(anchors, np.zeros(3, np.float32), 8.0)
    assert positive.tolist() == [True, False, False, True]  # 2 off: 6 / 10
    assert negative.tolist() == [False, False, True, False]


def test_weights_keep_the_sum():
    rng = np.random.default_rng(0)
    losses, iou_ = np.float32(rng.random(9) + 0.1), np.float32(rng.random(9))
    counted = rng.random(9) > 0.4
    weights = np.asarray(balance_weights(losses, iou_, counted))
    assert np.sum(weights * losses) == pytest.approx(losses[counted].sum(), rel=1e-5)
    chosen = np.flatnonzero(counted)[:2]
    ratio = (iou_[chosen[0]] / iou_[chosen[1]]) ** 1.5
    assert weights[chosen[0]] / weights[chosen[1]] == pytest.approx(ratio, rel=1e-4)
    assert (weights[~counted] == 0).all()


def test_boxes_that_all_miss_have_plain_weights():
    counted = np.array([True, True, False])
    weights = balance_weights(np.ones(3, np.float32), np.zeros(3, np.float32), counted)
    np.testing.assert_array_equal(weights, [1.0, 1.0, 0.0])


ANCHORS = np.asarray(make_anchors((16, 16, 16), 4))
TARGET = np.array([6.0, 9.0, 8.0], np.float32)


def perfect_outputs():
    """Certain and right at the target's positive anchors, certain elsewhere that nothing is."""
    positive, _ = assign(ANCHORS, TARGET, 8.0)
    outputs = np.zeros((len(ANCHORS), 5), np.float32)
    outputs[:, 0] = np.where(positive, 20.0, -20.0)
    outputs[:, 1:4] = (TARGET - ANCHORS) / 8.0
    return outputs


@jax.jit
@jax.value_and_grad
def box_loss(outputs):
    return boxes.box_loss(outputs, ANCHORS, TARGET, side_vox=8.0)


@pytest.mark.parametrize(
    ("shift", "smooth_l1"),
    [pytest.param(0.5, 0.125, id="a parabola"), pytest.param(3.0, 2.5, id="a line from 1 on")],
)
def test_the_loss_by_hand(shift, smooth_l1):
    """One anchor, on its target: its weights keep the sum, so the IoU does not count."""
    outputs = np.float32([[-2.0, shift, 0.0, 0.0, 0.0]])
    anchors, target = np.zeros((1, 3), np.float32), np.zeros(3, np.float32)
    found = jax.jit(boxes.box_loss)(outputs, anchors, target, side_vox=8.0)
    np.testing.assert_allclose(found, np.log1p(np.exp(2.0)) + smooth_l1, rtol=1e-6)


def test_the_loss_is_zero_where_all_is_right_and_only_there():
    perfect = perfect_outputs()
    assert box_loss(perfect)[0] < 1e-6
    for column, change in ((0, -19.0), (1, 0.3), (4, 0.5)):
        outputs = perfect.copy()
        outputs[:, column] += change if column else np.where(outputs[:, 0] > 0, change, -change)
        assert box_loss(outputs)[0] > 0.01


def test_no_gradient_goes_through_the_weights():
    """At a right score the IoU's weight must not pull on the boxes' sizes beyond smooth L1."""
    outputs = perfect_outputs()
    outputs[:, 4] = 0.2
    _, gradient = box_loss(outputs)
    positive = np.asarray(assign(ANCHORS, TARGET, 8.0)[0])
    # all positives are off alike, so their weights are 1
    expected = np.where(positive, 0.2 / positive.sum(), 0.0)
    np.testing.assert_allclose(gradient[:, 4], expected, rtol=1e-4, atol=1e-9)


def rotate(points, degrees):
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return points @ turn.T + 5.0


def test_the_prior_is_zero_at_the_mean_shape_in_any_pose():
    shape = np.random.default_rng(0).uniform(0, 20, (5, 3))
    d = boxes.mean_distances(shape[None], np.ones((1, 5), bool))
    every = np.ones(5, bool)
    for degrees in (0, 40, 130):
        assert float(shape_prior(rotate(shape, degrees), d, every)) < 1e-4
    larger = shape_prior(1.1 * shape, d, every)
    assert float(larger) == pytest.approx(10 * 0.1, rel=1e-4)  # ten pairs, each 10 % off


def test_the_prior_leaves_out_what_is_absent():
    shape = np.random.default_rng(1).uniform(0, 20, (3, 3))
    d = boxes.mean_distances(shape[None], np.ones((1, 3), bool))
    moved = shape.copy()
    moved[2] += 9.0
    there = np.array([True, True, False])
    assert float(shape_prior(moved, d, there)) < 1e-5
    same = np.zeros((3, 3))  # all in one place: a gradient all the same
    gradient = jax.jit(jax.grad(boxes.shape_prior))(same, d, np.ones(3, bool))
    assert np.isfinite(gradient).all()


def test_mean_distances_by_hand():
    points = np.zeros((2, 3, 3))
    points[0, 1], points[1, 1] = [3.0, 4.0, 0.0], [0.0, 0.0, 7.0]
    present = np.array([[True, True, False], [True, True, False]])
    d = boxes.mean_distances(points, present)
    np.testing.assert_allclose(d, [[0, 6, 0], [6, 0, 0], [0, 0, 0]])
