"""What a report says, from numbers that are made up."""

import numpy as np
import pytest

from fetal_jax.report import charts, sections
from fetal_jax.runs.point_table import PointRows

FIGURE = charts.Chart(b"", '<svg width="9pt" height="9pt"></svg>', "what it <shows>")


def describe(n, d_mean=2.0, **more):
    known = d_mean if n else None
    return {
        "n": n, "d_mean_mm": known, "d_mean_ci_mm": [1.0, 3.0] if n else None, "d_sd_mm": known,
        "d_median_mm": known, "d_p95_mm": known, "success_rate": {"4.0": 0.5 if n else None},
        "success_rate_ci": {"4.0": [0.25, 0.625] if n else None}, "argmax_d_mean_mm": 2.75,
    } | more  # fmt: skip


def make_result(**more):
    return {
        **describe(20), "cases": 5, "subjects": 4, "landmarks": 20, "guess_d_mean_mm": 6.0,
        "completed": describe(0), "annotators": None, "truth": None,
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("share", "low", "word"),
    [
        (1.0, 0.88, "reliable"),
        (0.9, 0.8, "reliable"),
        (0.85, 0.7, "check it"),
        (0.79, 0.6, "do not rely on it"),
    ],
)
def test_the_use_of_a_landmark(share, low, word):
    row = {"n": 30, "within_radius": share, "within_radius_ci": [low, 1.0]}
    assert sections.judge_landmark(row)[0] == word


def test_a_share_of_one_subject_s_points_is_not_reliable():
    row = {"n": 3, "within_radius": 1.0, "within_radius_ci": None}
    assert sections.judge_landmark(row)[0] == "check it"


def test_landmarks_best_first_and_untested_last():
    trust = {"within_radius": 1.0, "within_radius_ci": [0.9, 1.0], "confidence_mean": 0.93}
    none = {"within_radius": None, "within_radius_ci": None, "confidence_mean": None}
    per = {
        "exL": describe(9, 3.0) | trust,
        "gone": describe(0) | none,
        "n": describe(9, 1.0) | trust,
    }
    result = make_result(per_landmark=per, confidence={"radius_mm": 4.0, "bins": []})
    body = sections.tabulate_landmarks(result, {"n": "nasion"}, FIGURE).body
    assert body.index(">n<") < body.index(">exL<") < body.index(">gone<")
    assert ">nasion<" in body and ">not tested<" in body and ">93 %<" in body
    assert "within 4 mm (95 %)" in body and "100 % (90–100)" in body


def test_the_result_in_a_sentence():
    said = sections.render_result(make_result())
    assert '<span id="d_mean_mm">2.00</span> mm' in said
    assert "(95 % interval 1.00 to 3.00 mm) on 20 visible landmarks of 5 test cases" in said
    assert "no visible landmark" in sections.render_result(make_result(landmarks=0))


def test_a_simulation_says_how_far_the_annotations_are():
    truth = {"n": 20, "d_mean_mm": 1.5, "d_mean_ci_mm": [1.25, 1.75]}
    truth |= {"annotation_d_mean_mm": 1.0, "annotation_d_mean_ci_mm": None}
    body = sections.tabulate_results({"test": make_result(truth=truth)}).body
    assert "the predictions are 1.50 (1.25–1.75) mm away, the annotations 1.00 mm" in body


def test_completed_points_and_annotators_are_apart():
    result = make_result(completed=describe(3, 7.0), annotators={"n": 9, "apart_mm": 1.25})
    body = sections.tabulate_results({"test cases": result}).body
    assert "test cases, completed points" in body and "7.00 (1.00–3.00)" in body
    assert "two annotators are 1.25 mm apart" in body
    assert "completed points<" not in sections.tabulate_results({"test": make_result()}).body


def test_the_table_has_the_argmax_and_the_intervals_of_shares():
    result = make_result()
    body = sections.tabulate_results({"external": result | {"models": 4}}).body
    assert (
        ">% within 4 mm (95 %)<" in body
        and ">50 (25–62)<" in body
        and ">by argmax<" in body
        and ">2.75<" in body
    )
    assert "external: of each point the mean of the errors of 4 models." in body
    for key in ("success_rate_ci", "argmax_d_mean_mm"):  # of an older version
        del result[key]
    body = sections.tabulate_results({"test": result}).body
    assert ">50<" in body and ">–<" in body


def make_points():
    text = {"case": "aabb", "label": "LRLR", "subject": "sstt", "site": "xxyy"}
    return PointRows(
        *(np.array(list(word), object) for word in (*text.values(), "1122")),
        np.zeros((4, 3)),
        np.zeros((4, 3)),
        np.array([1.0, 3.0, 9.0, 5.0]),
        np.array([True, True, False, True]),
        np.array([0.5, 0.7, 0.1, 0.3]),
        np.array([20.0, 20.0, np.nan, np.nan]),
        np.full(4, np.nan),
        np.full(4, np.nan),
    )


def test_what_looks_wrong_beside_the_error_that_it_has():
    section = sections.tabulate_doubts({"b": "n < m is odd"}, make_points())
    assert (
        "n &lt; m is odd" in section.body and ">5.00<" in section.body and ">a<" not in section.body
    )
    assert "the other 1; their mean error is 2.00 mm" in section.body
    assert "Nothing does" in sections.tabulate_doubts({}, make_points()).body


def test_cases_by_their_visible_points():
    first, second = sections.group_cases(make_points())
    assert (first["case"], first["error_mm"], first["worst"], first["worst_mm"]) == ("a", 2, "R", 3)
    assert (second["visible"], second["error_mm"], second["fold"]) == (1, 5.0, "2")
    assert first["confidence"] == pytest.approx(0.6)
    body = sections.tabulate_cases(make_points()).body
    assert body.index(">b<") < body.index(">a<") and "R 5.00" in body and ">20<" in body


def test_a_case_of_which_nothing_is_visible():
    points = make_points()._replace(visible=np.zeros(4, bool))
    assert np.isnan(sections.group_cases(points)[0]["error_mm"])
    assert ">–<" in sections.tabulate_cases(points).body


def test_measurements():
    row = {
        "name": "mouth width chL–chR", "unit": "mm", "n": 9, "gaps": 2, "true_mean": 20.04,
        "bias": -0.5, "bias_ci": [-0.75, -0.25], "noise_floor": 0.125, "error_sd": 1.0,
        "limits": [-2.46, 1.46], "mean_abs_error": 0.9,
        "mean_abs_error_ci": None,
    }  # fmt: skip
    section = sections.tabulate_measurements({"measurements": {"mouth_width": row}}, FIGURE)
    for text in (
        "mouth width chL–chR",
        ">20.0<",
        "-0.50 (-0.75 to -0.25)",
        ">0.12<",
        "-2.46 to 1.46",
        ">0.90<",
    ):
        assert text in section.body
    assert "what it &lt;shows&gt;</figcaption>" in section.body
    assert "true points" not in section.body
    assert sections.tabulate_measurements({"measurements": {}}, None) is None
    exact = {"bias": 0.25, "bias_ci": [0.0, 0.5], "annotated_bias": 1.5, "annotated_bias_ci": None}
    rows = {"mouth_width": row | {"exact": exact}, "nasal_width": row | {"exact": None}}
    body = sections.tabulate_measurements({"measurements": rows}, None).body
    assert "annotated from true" in body and ">0.25<" in body and ">1.50<" in body


def test_charts_stand_beside_each_other_with_what_they_show():
    body = sections.render_charts({"a": FIGURE, "b": FIGURE}, "Test cases. ")
    assert body.count("<figcaption>what it &lt;shows&gt;</figcaption>") == 2
    assert body.count('aria-label="Test cases. what it &lt;shows&gt;"') == 2


RESULTS = {"steps": 400, "seconds": 90.0, "device": "4 x cpu", "seed": 7}
PROGRAM = {"version": "0.1.0", "commit": f"{'0a1b' * 10}+changes", "jax": "0.10.2"}


def test_how_it_was_made():
    program = PROGRAM | {"jaxlib": "0.10.1", "python": "3.11.2"}
    files = [("a.csv", "all"), ("card.md", "what it is")]
    body = sections.render_run(RESULTS | {"program": program}, "{}", files).body
    assert "400 steps in 1.5 minutes on 4 x cpu, seed 7." in body
    assert (
        "fetal_jax 0.1.0, commit 0a1b0a1b0a1b, with changes to it, JAX 0.10.2, jaxlib 0.10.1, "
        "Python 3.11.2." in body
    )
    assert "<li><code>a.csv</code> all</li>" in body
    assert '<li><a href="../card.md"><code>card.md</code></a> what it is</li>' in body


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        pytest.param({}, "", id="older run"),
        pytest.param({"program": None}, "", id="none"),
        pytest.param({"program": {"version": "1", "commit": None}}, "fetal_jax 1", id="installed"),
    ],
)
def test_a_program_that_nobody_knows(results, expected):
    assert sections.format_program(results) == expected
    assert "seed 7." in sections.render_run(RESULTS | results, "{}", []).body
