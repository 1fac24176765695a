"""Boxes that are known: what is found among them, and what is trained with."""

from functools import partial

import jax
import numpy as np
import pytest

from fetal_jax import boxes
from fetal_jax.detectors.box_detector import TITLE, box_detector
from fetal_jax.examples import Examples
from fetal_jax.models.rpn3d import CellOutputs

SIDE_VOX, SPACING_MM = 8.0, 2.0


class Proposer:
    """A network whose parameters are what it says of each volume's cells."""

    widths = (1,)
    landmarks = 2

    def init(self, key, x):
        return np.zeros((1, 2, 8, 5), np.float32)

    def apply(self, params, x):
        return CellOutputs(params)


def build(anchors, *, side_vox=SIDE_VOX, distances_vox=None, prior_weight=0.1, on_completed=True):
    return box_detector(
        Proposer(),
        anchors=np.asarray(anchors, np.float32),
        side_vox=side_vox,
        distances_vox=distances_vox,
        prior_weight=prior_weight,
        on_completed=on_completed,
        radii_mm=np.array([1.0, 40.0], np.float32),
        spacing_mm=SPACING_MM,
    )


# ---- what is found ----


def test_the_best_box_is_the_answer():
    anchors = [[2.0, 2, 2], [6.0, 2, 2], [6.0, 6, 6]]
    outputs = np.zeros((1, 1, 3, 5), np.float32)
    outputs[0, 0, :, 0] = [-1.0, 2.0, 1.0]
    outputs[0, 0, 1, 1:4] = [0.5, 0.0, -0.25]  # of a side of 4 voxels
    examples = Examples(
        volumes=np.zeros((1, 8, 8, 8), np.float32),
        points_vox=np.array([[[6.0, 6.0, 6.0]]], np.float32),
    )
    find = jax.jit(build(anchors, side_vox=4.0).find)
    found = find(outputs, examples)
    np.testing.assert_allclose(found.points_vox, [[[8.0, 2.0, 1.0]]])
    np.testing.assert_array_equal(found.argmax_vox, found.points_vox)
    np.testing.assert_allclose(found.mass, [[1 / (1 + np.exp(-2.0))]], rtol=1e-5)
    far = SPACING_MM * np.linalg.norm([2.0, -4.0, -5.0])
    np.testing.assert_allclose(found.local_mm, [[[0.0, far]]], rtol=1e-5)
    assert found.map is None

    found = find(outputs, examples._replace(points_vox=None))
    assert found.local_mm is None and found.local_guess_mm is None


def test_a_map_is_the_score_of_each_cell():
    outputs = np.full((1, 2, 8, 5), -3.0, np.float32)
    outputs[0, 1, 5, 0] = 2.0  # the cell 1, 0, 1 of 2 x 2 x 2
    examples = Examples(volumes=np.zeros((1, 4, 4, 4), np.float32), shown=np.array([1], np.int32))
    map_ = jax.jit(build(np.zeros((8, 3)), side_vox=2.0).find)(outputs, examples).map[0]
    assert map_.shape == (4, 4, 4)
    expected = np.full((4, 4, 4), (1 + np.exp(-2.0)) / (1 + np.exp(3.0)))
    expected[2:, :2, 2:] = 1.0
    np.testing.assert_allclose(map_, expected, rtol=1e-5)


# ---- what is trained with ----

ANCHORS = np.asarray(jax.jit(boxes.make_anchors, static_argnums=(0, 1))((16, 16, 16), 4))
TARGET = np.array([6.0, 9.0, 8.0], np.float32)


@pytest.fixture(scope="module")
def perfect():
    """[3, 2, M, 5]: certain and right where the target is, certain elsewhere that nothing is."""
    positive, _ = jax.jit(boxes.assign_anchors)(ANCHORS, TARGET, SIDE_VOX)
    outputs = np.zeros((len(ANCHORS), 5), np.float32)
    outputs[:, 0] = np.where(positive, 20.0, -20.0)
    outputs[:, 1:4] = (TARGET - ANCHORS) / SIDE_VOX
    return np.tile(outputs, (3, 2, 1, 1))


def make_examples():
    """Three, whose second landmark in the second is somewhere else, and only completed."""
    points = np.tile(TARGET, (3, 2, 1))
    points[1, 1] += 5.0
    visible = np.ones((3, 2), bool)
    visible[1, 1] = False
    return Examples(
        volumes=np.zeros((3, 16, 16, 16), np.float32),
        points_vox=points,
        present=np.ones((3, 2), bool),
        visible=visible,
    )


@partial(jax.jit, static_argnames="on_completed")
def sum_losses(outputs, *, on_completed, **settings):
    detector = build(ANCHORS, on_completed=on_completed, **settings)
    return detector.sum_losses(outputs, make_examples())


@pytest.mark.parametrize(
    ("on_completed", "count", "wrong"),
    [pytest.param(False, 5, False, id="seen"), pytest.param(True, 6, True, id="completed, too")],
)
def test_losses_leave_out_what_is_not_counted(perfect, on_completed, count, wrong):
    sums = sum_losses(perfect, on_completed=on_completed)
    assert sums.keys() == {"boxes", "prior"}
    assert int(sums["boxes"].count) == int(sums["prior"].count) == count
    assert (float(sums["boxes"].total) > 1.0) == wrong
    assert wrong or float(sums["boxes"].total) < 1e-5


def test_the_prior_compares_the_expected_centres_with_the_mean_shape(perfect):
    """Both landmarks' boxes are in one place, and in the mean shape 10 voxels apart."""
    apart = np.array([[0.0, 10.0], [10.0, 0.0]], np.float32)
    settings = {"distances_vox": apart, "prior_weight": 0.3}
    prior = sum_losses(perfect, on_completed=False, **settings)["prior"]
    # a pair is all but 10 off of 10; the second example does not have both
    np.testing.assert_allclose(prior.total, 2.0, rtol=1e-3)
    assert prior.weight == np.float32(0.3) and int(prior.count) == 5


def test_without_a_shape_there_is_no_prior(perfect):
    prior = sum_losses(perfect, on_completed=True)["prior"]
    assert float(prior.total) == 0.0


def test_its_title():
    detector = build(ANCHORS)
    assert detector.title == TITLE and "our reconstruction" in TITLE
    assert detector.init(jax.random.key(0)).shape == (1, 2, 8, 5)
