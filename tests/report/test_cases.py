"""Which cases are shown, by arithmetic."""

import numpy as np
import pytest

from fetal_jax.report import cases


def test_the_worst_three_and_the_median():
    errors = np.array([[1.0, 1.0], [9.0, 3.0], [2.0, 6.0], [3.0, 2.0], [1.0, 2.0]])
    visible = np.ones((5, 2), bool)
    # means 1, 6, 4, 2.5, 1.5: in order 1 2 3 4 0, whose middle is the third worst
    assert cases.choose_cases(errors, visible) == [
        ("worst case", 1, 0),
        ("second worst", 2, 1),
        ("third worst, median case", 3, 0),
    ]


def test_only_visible_points_count():
    errors = np.array([[1.0, 99.0], [2.0, 3.0], [np.nan, 5.0], [8.0, 8.0]])
    visible = np.array([[True, False], [True, True], [False, True], [False, False]])
    assert cases.choose_cases(errors, visible) == [
        ("worst case", 2, 1),
        ("second worst, median case", 1, 1),
        ("third worst", 0, 0),
    ]


def test_one_case_and_none():
    assert cases.choose_cases(np.ones((1, 2)), np.ones((1, 2), bool)) == [("worst case", 0, 0)]
    assert cases.choose_cases(np.ones((3, 2)), np.zeros((3, 2), bool)) == []


def test_a_shown_case_has_its_place_in_the_world(make_prepared):
    prepared = make_prepared([[[2.0, 3, 4], [np.nan] * 3], [[1.0, 6, 2], [5, 5, 5]]])
    shown = cases.show_case(
        prepared, 1, title="worst case", labels=["L", "R"],
        predicted_mm=prepared.points_mm[1] + [[0.0, 0, 4.0], [3.0, 0, 0]],
        confidence=np.array([0.5, 0.6]), radius_mm=np.ones(2), landmark=0, grid=prepared.grids[1],
        volume=prepared.volumes[1], map_=np.zeros((8, 8, 8)),
    )  # fmt: skip
    assert shown.name == "c1" and shown.error_mm.tolist() == pytest.approx([4.0, 3.0])
    np.testing.assert_allclose(shown.predicted_vox, [[1.0, 6, 4], [6.5, 5, 5]])
    np.testing.assert_allclose(shown.to_world(shown.points_vox), prepared.points_mm[1])
    first = cases.show_case(
        prepared, 0, title="", labels=["L", "R"], predicted_mm=prepared.points_mm[1],
        confidence=np.zeros(2), radius_mm=np.ones(2), landmark=0, grid=prepared.grids[0],
        volume=prepared.volumes[0], map_=np.zeros((8, 8, 8)),
    )  # fmt: skip
    assert np.isnan(first.points_vox[1]).all() and np.isnan(first.error_mm[1])
