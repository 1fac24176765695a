"""Whether radii keep their promise, in cases where each share is arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.runs.region import format_region, summarise_region

LABELS = ["L", "R", "nose"]  # errors of 5, 1, 2; 3, -, 7; 1, 4, 100 mm, the last one completed


@pytest.fixture
def errors_mm():
    return np.array([[[5.0, 1, 2], [3, np.nan, 7], [1, 4, 100]]])


def test_shares_of_all_points_and_of_each_landmark(prepared, errors_mm):
    radius_mm = np.full((1, 3, 3), 4.0)
    radius_mm[0, 2, 2] = 100.0
    found = summarise_region(radius_mm, errors_mm, prepared, LABELS, 0.9)
    assert (found["share"], found["enough_subjects"]) == (0.9, 9)
    counts = [(found[k]["n"], found[k]["within"]) for k in ("all", "visible", "completed")]
    assert counts == [(8, 0.75), (7, 5 / 7), (1, 1.0)]
    low, high = found["all"]["within_ci"]
    assert 0 < low < 0.75 < high < 1 and found["completed"]["within_ci"] is None  # one child
    each = [(found["per_landmark"][k]["n"], found["per_landmark"][k]["within"]) for k in LABELS]
    assert each == [(3, 2 / 3), (2, 1.0), (3, 2 / 3)]
    assert found["all"]["radius_median_mm"] == 4.0
    assert found["completed"]["radius_median_mm"] == 100.0
    line = format_region(found)
    assert line.startswith("75 % of all points within their own radius (95 % interval ")
    assert line.endswith("which is to hold 90 %; its median is 4.00 mm")


def test_of_several_models_the_mean_share(prepared, errors_mm):
    both = np.concatenate([errors_mm, errors_mm + 1.0])
    radius_mm = np.stack([np.full((3, 3), 4.0), np.full((3, 3), 3.0)])
    found = summarise_region(radius_mm, both, prepared, LABELS, 0.5)
    # of the second R's 2 and L's 2, nose's 3 mm
    assert found["all"]["within"] == pytest.approx((5 + 3) / 16)
    assert found["all"]["radius_median_mm"] == 3.5


def test_no_radius_and_why(prepared, errors_mm):
    unknown = np.full((1, 3, 3), np.nan)
    assert summarise_region(unknown, errors_mm, prepared, LABELS, 0.9) is None
    few = summarise_region(np.full((1, 3, 3), np.inf), errors_mm, prepared, LABELS, 0.9)
    assert few == {"share": 0.9, "enough_subjects": 9, "all": None}
    assert format_region(few).endswith("too few subjects to learn it from, 9 are enough")
    nothing = replace(prepared, present=np.zeros((3, 3), bool), visible=np.zeros((3, 3), bool))
    empty = summarise_region(np.ones((1, 3, 3)), errors_mm, nothing, LABELS, 0.9)
    assert empty["all"]["n"] == 0 and "no point to test it" in format_region(empty)
