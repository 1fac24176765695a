"""Charts: what is drawn is what was given, and how it stands in a page."""

import numpy as np
import pytest
from matplotlib.image import imread

from fetal_jax.report import charts
from fetal_jax.runs.learning_curve import LearningCurve


def describe(mean, n=10, ci=None):
    interval = ci or ([mean - 0.5, mean + 0.5] if n else None)
    return {"n": n, "d_mean_mm": mean, "d_mean_ci_mm": interval}


def make_result(shift=0.0):
    return {
        "cases": 5,
        "landmarks": 30,
        "ela": {
            "radii_mm": [1.0, 2.0, 4.0],
            "overall": [0.5, 0.9 + shift, 1.2 + shift],
            "guess": [0.7, 1.4, 2.8],
        },
        "per_landmark": {
            "n": describe(2.0 + shift),
            "exL": describe(1.0 + shift),
            "pg": describe(None, n=0),
        },
        "per_age_group": {"<24": describe(3.0), "24-28": describe(2.0), ">=28": describe(1.0)},
        "per_site": {"north": describe(1.0), "south": describe(2.0)},
    }


RESULTS = {"emd": make_result(), "ce & more": make_result(0.2)}


LONG = "EMD-regularised, ω 0.5, optim.lr 0.005, target.kind exponential, target.width_vox {}"
CURVE = LearningCurve([100, 200], [9.0, 3.0])
OF_MANY = {
    "ela": charts.draw_ela,
    "landmarks": charts.draw_landmarks,
    "ages": lambda results: charts.draw_groups(results, "per_age_group", "weeks"),
    "success": lambda results: charts.draw_success(
        dict.fromkeys(results, np.ones(3)), dict.fromkeys(results, 3), [2.0]
    ),
    "curves": lambda results: charts.draw_curves(dict.fromkeys(results, CURVE)),
}


@pytest.mark.parametrize("titles", [["a"], ["a", "b"], [LONG.format(n) for n in range(12)]])
@pytest.mark.parametrize("draw", OF_MANY.values(), ids=OF_MANY)
def test_the_legend_is_whole_and_covers_nothing(draw, titles):
    figure = draw({title: make_result() for title in titles})
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert ax.get_legend() is None
    assert ax.get_window_extent().height > figure.dpi
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert box.y0 >= ax.get_window_extent().y1
        shown = " ".join(text.get_text() for text in legend.get_texts()).replace("\n", " ")
        assert all(title in shown for title in titles)


def test_local_accuracy():
    (ax,) = charts.draw_ela(RESULTS).axes
    assert ax.get_yscale() == "log" and "mm" in ax.get_xlabel() and "mm" in ax.get_ylabel()
    lines = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert list(lines) == ["emd", "ce & more", "random: 0.75 R", "random, this volume"]
    np.testing.assert_allclose(lines["ce & more"], [[1, 0.5], [2, 1.1], [4, 1.4]])
    np.testing.assert_allclose(lines["random: 0.75 R"][:, 1], [0.75, 1.5, 3.0])


def test_local_accuracy_that_nobody_knows():
    unknown = make_result() | {"ela": {"radii_mm": [1.0], "overall": None, "guess": None}}
    (ax,) = charts.draw_ela({"ensemble": unknown}).axes
    assert not ax.get_lines()


def test_landmarks_best_first():
    (ax,) = charts.draw_landmarks(RESULTS).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["exL", "n", "pg"]
    first, second = (bar.lines[0].get_xdata() for bar in ax.containers)
    np.testing.assert_allclose([first, second], [[1.0, 2.0], [1.2, 2.2]])


@pytest.mark.parametrize(
    ("group", "names"),
    [("per_age_group", ["<24", "24-28", ">=28"]), ("per_site", ["north", "south"])],
)
def test_groups_in_order_with_their_n(group, names):
    (ax,) = charts.draw_groups(RESULTS, group, group).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"{name}\nn = 10" for name in names]


def test_success_by_hand():
    (ax,) = charts.draw_success({"a": np.array([3.0, 1.0, 2.0, 8.0])}, {"a": 2}, [2.0, 4.0]).axes
    curve = ax.get_lines()[0]
    assert curve.get_label() == "a (n = 2)"  # points, each with an error of two models
    x, y = curve.get_xydata()[:5].T
    np.testing.assert_allclose(x, [0, 1, 2, 3, 8])
    np.testing.assert_allclose(y, [0, 25, 50, 75, 100])
    assert ax.get_xlim() == (0.0, 10.0)


def test_ages_of_each_site():
    ages, errors = np.array([20.0, 30.0, np.nan]), np.array([1.0, 2.0, 3.0])
    (ax,) = charts.draw_ages(ages, errors, ["north", "south", "north"]).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines == {
        "north (n = 1 scans)": [[20.0, 1.0]],
        "south (n = 1 scans)": [[30.0, 2.0]],
    }


def test_confidence_in_percent():
    bins = [{"n": 7, "confidence": 0.4, "share": 0.5, "ci": [0.3, 0.8]}]
    (ax,) = charts.draw_calibration(
        {"seen": bins, "hidden": bins}, promised="confidence, %", came="points within 4 mm, %"
    ).axes
    assert ax.containers[0].lines[0].get_xydata().tolist() == [[40.0, 50.0]]
    assert "within 4 mm" in ax.get_ylabel()
    assert ax.get_legend().get_texts()[1].get_text() == "seen (95 %), 7 points each"


def test_growth_of_each_measurement():
    ages = np.array([20.0, 30.0])
    panels = [
        ("mouth width", "mm", np.array([10.0, 20.0]), np.array([11.0, np.nan]), None),
        ("nose", "°", np.zeros(2), np.ones(2), lambda weeks: 2 * weeks),
    ]
    figure = charts.draw_growth(ages, panels)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["mouth width (n = 1)", "nose (n = 2)"]
    assert [ax.get_ylabel() for ax in shown] == ["mm", "°"]
    assert len(shown[0].get_lines()) == 2
    curve = shown[1].get_lines()[2].get_xydata()
    np.testing.assert_allclose(curve[[0, -1]], [[20, 40], [30, 60]])


def test_differences_against_means():
    observers, program = np.array([[3.0, 1.0], [5.0, 6.0]]), np.array([[1.0, 4.0]])
    figure = charts.draw_differences(
        [
            ("width", "mm", observers, program, 2.5),
            ("angle", "°", np.empty((0, 2)), np.empty((0, 2)), None),
        ]
    )
    width, angle, empty = figure.axes
    assert "(n = 2)" in width.get_title() and angle.get_ylabel() == "°" and not empty.get_visible()
    drawn = {tuple(map(tuple, line.get_xydata())) for line in width.get_lines()}
    assert {((2.0, 2.0), (5.5, -1.0)), ((2.5, -3.0),)} <= drawn
    level = {line.get_ydata()[0] for line in width.get_lines() if line.get_linestyle() == "--"}
    assert level == {-2.5, 2.5}


def test_files_for_a_paper(tmp_path):
    charts.render_chart(charts.draw_landmarks(RESULTS), "").save(tmp_path / "deep" / "landmarks.v2")
    assert np.ptp(imread(tmp_path / "deep" / "landmarks.v2.png")) == 1.0
    assert "<svg" in (tmp_path / "deep" / "landmarks.v2.svg").read_text()


def test_in_a_page_it_takes_the_page_s_ink():
    chart = charts.render_chart(charts.draw_ela(RESULTS), "said")
    svg = chart.to_inline('curves, "all"')
    assert svg.startswith('<svg role="img" aria-label="curves, &quot;all&quot;"')
    assert "currentColor" in svg and "#000000" not in svg and "var(--line)" in svg
    assert ">radius R round the true point, mm</text>" in svg and "ce &amp; more" in svg
    assert "<metadata>" not in svg and svg.count("<svg") == 1
    assert "fill: #ffffff" in chart.svg and "fill: #ffffff" not in svg
    assert chart.caption == "said"
    assert chart == charts.render_chart(charts.draw_ela(RESULTS), "said")
