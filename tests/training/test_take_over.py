"""Parameters of another network: what has the same shape, and each landmark's own by its place."""

from types import SimpleNamespace

import numpy as np
import pytest

from fetal_jax.training.take_over import LandmarkAxis, find_landmark_axes, take_over


def make_network(landmarks, width=4, start=0.0):
    """A block, a layer with landmarks last, one with five numbers for each, one with them first."""
    shapes = {
        "block/kernel": (3, width),
        "maps": (width, landmarks),
        "boxes": (width, landmarks * 5),
        "bias": (landmarks, 5),
    }
    arrays = {k: np.arange(np.prod(s), dtype=np.float32).reshape(s) for k, s in shapes.items()}
    tree = {"block": {"kernel": arrays.pop("block/kernel") + start}}
    return tree | {name: array + start for name, array in arrays.items()}


AXES = {
    "block/kernel": None,
    "maps": LandmarkAxis(1, 1),
    "boxes": LandmarkAxis(1, 5),
    "bias": LandmarkAxis(0, 1),
}


@pytest.mark.parametrize("landmarks", [1, 3, 4, 19])
def test_the_axis_of_landmarks_is_the_one_that_grows_with_them(landmarks):
    """Also where a width is the same number."""
    assert find_landmark_axes(make_network, landmarks) == AXES


def test_two_axes_of_landmarks_are_none():
    def make(landmarks):
        return {"both": SimpleNamespace(shape=(landmarks, landmarks))}

    with pytest.raises(ValueError, match="expected one axis of landmarks in both"):
        find_landmark_axes(make, 3)


def test_landmarks_go_to_their_new_places():
    fresh, before = make_network(3), make_network(2, start=100.0)
    params, taken = take_over(fresh, before, AXES, [1, None, 0])
    assert taken == ["block/kernel"]
    np.testing.assert_array_equal(params["block"]["kernel"], before["block"]["kernel"])
    np.testing.assert_array_equal(params["maps"][:, [2, 0]], before["maps"])
    np.testing.assert_array_equal(params["maps"][:, 1], fresh["maps"][:, 1])
    np.testing.assert_array_equal(params["boxes"][:, 10:], before["boxes"][:, :5])
    np.testing.assert_array_equal(params["boxes"][:, :5], before["boxes"][:, 5:])
    np.testing.assert_array_equal(params["boxes"][:, 5:10], fresh["boxes"][:, 5:10])
    np.testing.assert_array_equal(params["bias"][[2, 0]], before["bias"])


def test_with_all_landmarks_known_everything_is_taken():
    fresh, before = make_network(2), make_network(3, start=50.0)
    params, taken = take_over(fresh, before, AXES, [2, 0])
    assert sorted(taken) == sorted(AXES)
    np.testing.assert_array_equal(params["maps"], before["maps"][:, [2, 0]])


def test_nothing_of_the_two_networks_changes():
    fresh, before = make_network(2), make_network(2, start=9.0)
    take_over(fresh, before, AXES, [1, 0])
    np.testing.assert_array_equal(fresh["maps"], make_network(2)["maps"])
    np.testing.assert_array_equal(before["maps"], make_network(2, start=9.0)["maps"])


def test_another_network_is_named_by_what_differs():
    with pytest.raises(ValueError, match=r"block/kernel is \(3, 4\) here, \(3, 6\) there"):
        take_over(make_network(2), make_network(2, width=6), AXES, [0, 1])
    fewer = make_network(2)
    del fewer["boxes"]
    with pytest.raises(ValueError, match="boxes is only here"):
        take_over(make_network(2), fewer, AXES, [0, 1])
    with pytest.raises(ValueError, match="boxes is only there"):
        take_over(fewer, make_network(2), AXES, [0, 1])
