"""Which charts a report has, and what stands under them."""

import numpy as np

from fetal_jax.report import captions
from fetal_jax.runs.measurement_table import MeasurementRows
from fetal_jax.runs.point_table import PointRows


def describe(mean):
    return {"n": 9, "d_mean_mm": mean, "d_mean_ci_mm": [mean - 0.5, mean + 0.5]}


def make_numbers(**changes):
    return {
        "cases": 2, "landmarks": 3, "success_rate": {"2.0": 0.5},
        "ela": {"radii_mm": [1.0, 2.0], "overall": [0.5, 0.9], "guess": [0.7, 1.4]},
        "confidence": {"bins": [], "radius_mm": 4.0, "completed": {"bins": []}},
        "per_landmark": {"n": describe(1.0)},
        "per_site": {"unknown": describe(1.0)},
        "per_age_group": {"unknown": describe(1.0)},
    } | changes  # fmt: skip


def make_rows(age_weeks=np.nan):
    words = [np.array(list(text), object) for text in ("aab", "LRL", "sst", "xxx", "111")]
    visible, unknown = np.ones(3, bool), np.zeros((3, 3))
    numbers = [np.array([1.0, 3.0, 5.0]), visible, np.full(3, 0.5), np.full(3, age_weeks)]
    return PointRows(*words, unknown, unknown, *numbers, np.full(3, np.nan), np.full(3, np.nan))


def test_only_what_the_data_allow():
    drawn = captions.draw_errors({"test": make_numbers()}, {"test": make_rows()})
    assert list(drawn) == ["ela", "success"]
    assert "has no higher false peak farther away." in drawn["ela"].caption
    assert "test (n = 3)" in drawn["success"].svg


def test_all_that_the_data_allow():
    bins = [{"n": 3, "confidence": 0.5, "share": 0.5, "ci": [0.3, 0.8]}]
    numbers = make_numbers(
        confidence={"bins": bins, "radius_mm": 4.0, "completed": {"bins": bins}},
        per_site={"x": describe(1.0)},
        per_age_group={"<24": describe(1.0)},
    )
    drawn = captions.draw_errors({"test": numbers}, {"test": make_rows(age_weeks=21.0)})
    assert list(drawn) == ["ela", "success", "confidence", "ages", "age-groups", "sites"]
    assert "x (n = 2 scans)" in drawn["ages"].svg
    assert all(chart.caption.endswith(".") for chart in drawn.values())


def test_landmarks_with_a_note():
    chart = captions.draw_landmarks({"test": make_numbers()}, "n = 3 visible points")
    assert chart.caption.endswith("with its 95 % interval, n = 3 visible points.")


def make_measurements(**changes):
    rows = MeasurementRows(
        np.array(["mouth_width", "biocular_width"] * 2, object),
        np.array([20.0, 1.0, 22.0, 1.0]),
        np.array([21.0, 1.0, np.nan, 1.0]),
        np.array([20.0, 20.0, 24.0, 24.0]),
    )
    return rows._replace(**changes)


def test_growth_is_drawn_where_an_age_is_known():
    chart = captions.draw_growth(make_measurements())
    assert "(n = 1)" in chart.svg and chart.caption.startswith("Each measurement against gest")
    assert captions.draw_growth(make_measurements(age_weeks=np.full(4, np.nan))) is None
    other = make_measurements(measurement=np.array(["of another version"] * 4, object))
    assert captions.draw_growth(other) is None
