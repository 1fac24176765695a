"""The numbers of results.json, by hand: errors of 5 1 2 | 3 - 7 | 1 4 (100, completed) mm."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

LABELS = ["L", "R", "nose"]


def test_the_whole(prepared, summarise):
    results = summarise(prepared)
    assert results["cases"] == 3 and results["landmarks"] == 7
    assert results["d_mean_mm"] == pytest.approx(23 / 7)
    assert results["d_median_mm"] == pytest.approx(3.0)
    deviations = [(e - 23 / 7) ** 2 for e in (5, 1, 2, 3, 7, 1, 4)]
    assert results["d_sd_mm"] == pytest.approx(math.sqrt(sum(deviations) / 6))
    assert results["success_rate"] == pytest.approx({"2.0": 3 / 7, "3.0": 4 / 7})
    # subjects have means of 8 / 3 and 15 / 4, each drawn twice in a quarter of the resamples
    assert results["d_mean_ci_mm"] == pytest.approx([8 / 3, 15 / 4])
    # with two children nearly nothing is known of 3 in 7 and 4 in 7
    for radius, share in (("2.0", 3 / 7), ("3.0", 4 / 7)):
        low, high = results["success_rate_ci"][radius]
        assert 0.001 < low < 0.05 and 0.95 < high < 0.999 and low < share < high
    assert results["argmax_d_mean_mm"] == pytest.approx(math.sqrt(3))
    # 0 + 4 + 2, 0 + 2, 0 + 4 mm
    assert results["guess_d_mean_mm"] == pytest.approx(12 / 7)


def test_landmarks_apart(prepared, summarise):
    per = summarise(prepared)["per_landmark"]
    assert list(per) == LABELS
    assert [per[label]["n"] for label in LABELS] == [3, 2, 2]
    means = [per[label]["d_mean_mm"] for label in LABELS]
    assert means == pytest.approx([3.0, 2.5, 4.5])
    assert per["R"]["success_rate"] == {"2.0": 0.5, "3.0": 0.5}


def test_completed_landmarks_are_apart(prepared, summarise):
    completed = summarise(prepared)["completed"]
    assert completed["n"] == 1 and completed["d_mean_mm"] == pytest.approx(100.0)
    assert completed["d_sd_mm"] is None


def test_nothing_visible_gives_nulls(prepared, summarise):
    prepared.visible[:] = False
    results = summarise(prepared)
    assert results["landmarks"] == 0 and results["d_mean_mm"] is None
    assert results["d_mean_ci_mm"] is results["guess_d_mean_mm"] is None
    assert results["completed"]["n"] == 8
    json.dumps(results, allow_nan=False)


def cut_part(part, chosen):
    """A part of only some of its cases."""
    faces = part.faces._replace(
        truth=part.faces.truth[chosen],
        predicted=part.faces.predicted[chosen],
        gaps=[part.faces.gaps[i] for i in chosen],
        noise_floor=part.faces.noise_floor[chosen],
        exact=part.faces.exact[chosen],
    )
    predictions = type(part.predictions)(*(array[chosen] for array in part.predictions))
    guess_error_mm = part.guess_error_mm[chosen]
    return part._replace(
        cases=part.cases.select(chosen),
        predictions=predictions,
        faces=faces,
        guess_error_mm=guess_error_mm,
    )


def test_parts_count_as_their_cases_together(prepared, make_tested, summarise):
    whole = make_tested(prepared)
    assert summarise([cut_part(whole, [0]), cut_part(whole, [1, 2])]) == summarise([whole])


def test_a_case_counts_once_however_many_models_look_at_it(prepared, make_tested, summarise):
    """The same model twice: every number, every n and every interval is that of one."""
    twice = summarise([make_tested(prepared, fold="1"), make_tested(prepared, fold="2")])

    def flatten(numbers):
        told = numbers["confidence"]
        for one in (told, told["completed"]):
            one["bins"] = dict(enumerate(one["bins"]))
        return flatten_dict(numbers)

    once, twice = flatten(summarise(prepared)), flatten(twice)
    assert once.keys() == twice.keys() and len(once) > 60
    for key, value in once.items():
        assert twice[key] == pytest.approx(value), key  # to the digits of a sum in another order


def three_times_as_far(part):
    """Another model: its errors are 15 3 6 | 9 - 21 | 3 12 (300) mm, to the other side."""
    truth = np.where(part.cases.present[..., None], part.cases.points_mm, 50.0)
    off = part.predictions.points_mm - truth
    told = part.predictions._replace(
        points_mm=truth - 3 * off,
        argmax_mm=part.cases.points_mm + 2.0,
        confidence=part.predictions.confidence + 0.5,
        local_mm=3 * part.predictions.local_mm,
    )
    return part._replace(predictions=told)


def test_of_several_models_the_mean_error_counts_and_not_that_of_the_mean(
    prepared, make_tested, summarise
):
    """Twice the errors of one; their mean point is as far off as the first, to the other side."""
    first = make_tested(prepared, np.full((3, 3), 0.25))
    results = summarise([first, three_times_as_far(first)])
    assert (results["cases"], results["landmarks"], results["completed"]["n"]) == (3, 7, 1)
    assert [one["n"] for one in results["per_landmark"].values()] == [3, 2, 2]
    assert sum(group["n"] for group in results["per_site"].values()) == 7
    assert results["d_mean_mm"] == pytest.approx(46 / 7)
    assert results["d_median_mm"] == pytest.approx(6.0)
    assert results["completed"]["d_mean_mm"] == pytest.approx(200.0)
    assert results["d_mean_ci_mm"] == pytest.approx([16 / 3, 15 / 2])
    # within 2 mm: 3 of 7 and none; within 3 mm: 4 of 7 and 2 of 7
    assert results["success_rate"] == pytest.approx({"2.0": 3 / 14, "3.0": 3 / 7})
    assert results["argmax_d_mean_mm"] == pytest.approx(1.5 * math.sqrt(3))
    assert results["ela"]["overall"] == [1.0, 9.0]
    # of L one model has 2 of 3 within 3 mm, the other 1
    assert results["per_landmark"]["L"]["within_radius"] == pytest.approx(0.5)
    assert results["per_landmark"]["L"]["confidence_mean"] == pytest.approx(0.5)
    told = results["confidence"]
    assert sum(b["n"] for b in told["bins"]) == 7
    assert sum(b["n"] * b["share"] for b in told["bins"]) == pytest.approx(3)
    squares = 4 * 0.75**2 + 3 * 0.25**2 + 2 * 0.25**2 + 5 * 0.75**2
    assert told["brier"] == pytest.approx(squares / 14)


def test_cases_with_more_models_than_others_are_refused(prepared, make_tested, summarise):
    whole = make_tested(prepared)
    one, others = cut_part(whole, [0]), cut_part(whole, [1, 2])
    with pytest.raises(ValueError, match=r"expected as many models on each case, got \[1, 2\]"):
        summarise([one, others, one])
    with pytest.raises(ValueError, match="got some cases in two"):
        summarise([whole, one])


def test_sites_and_ages_apart(prepared, summarise):
    sites, ages = ("a", "b", ""), (23.9, 24.0, math.nan)
    cases = [
        replace(case, site=site, age_weeks=age)
        for case, site, age in zip(prepared.cases, sites, ages, strict=True)
    ]
    results = summarise(replace(prepared, cases=tuple(cases)))
    assert {k: v["d_mean_mm"] for k, v in results["per_site"].items()} == pytest.approx(
        {"a": 8 / 3, "b": 5.0, "unknown": 2.5}
    )
    counts = {k: v["n"] for k, v in results["per_age_group"].items()}
    assert counts == {"24-28": 2, "<24": 3, "unknown": 2}
    over = results["age_mean"]
    assert over["groups"] == 2 and over["d_mean_mm"] == pytest.approx((8 / 3 + 5.0) / 2)
    assert summarise(prepared)["age_mean"] is None  # of unknown age all


def test_local_accuracy_is_a_mean_of_the_landmarks_means(prepared, summarise):
    ela = summarise(prepared)["ela"]
    assert ela["radii_mm"] == [1.0, 20.0]
    # at 20 mm the cases have 1 2 3, 4 5 6, 7 8 9; R is absent in the second, nose not visible last
    each = {"L": 4.0, "R": 5.0, "nose": 4.5}
    assert {label: curve[1] for label, curve in ela["per_landmark"].items()} == each
    assert ela["overall"] == [0.5, 4.5] and ela["guess"] == [1.0, 9.0]


def test_annotators_apart(prepared, summarise):
    assert summarise(prepared)["annotators"] is None
    prepared.spread_mm[:2, 0] = [1.0, 2.0]
    prepared.spread_mm[2, 2] = 50.0  # not visible
    assert summarise(prepared)["annotators"] == {"n": 2, "apart_mm": 1.5}


def test_the_true_points_beside_the_annotated(prepared, predicted_mm, summarise):
    """True: 1 mm from each annotation of the first case, along S; nothing is known of the others.

    The predictions are off by (3, 4, 0), (0, 0, 1) and (0, 2, 0) mm.
    """
    assert summarise(prepared)["truth"] is None
    prepared.true_mm[0] = prepared.points_mm[0] + [0.0, 0.0, 1.0]
    truth = summarise(prepared)["truth"]
    assert truth["n"] == 3 and truth["annotation_d_mean_mm"] == pytest.approx(1.0)
    expected = np.mean([26**0.5, 0.0, 5**0.5])
    assert truth["d_mean_mm"] == pytest.approx(expected)
    assert truth["d_mean_ci_mm"] is None  # one subject


def test_confidence_of_completed_points_is_apart(prepared, summarise):
    """The nose of the last case is 100 mm off, at a confidence of 0.8."""
    found = summarise(prepared, np.arange(9.0).reshape(3, 3) / 10)["confidence"]
    [one] = found["completed"]["bins"]
    assert (one["n"], one["share"]) == (1, 0.0) and one["confidence"] == pytest.approx(0.8)
    assert found["completed"]["brier"] == pytest.approx(0.64)
    assert sum(one["n"] for one in found["bins"]) == 7


def test_which_landmarks_can_be_trusted(prepared, summarise):
    """Within 3 mm: of L the second and third, of R the first, of the nose the first."""
    per = summarise(prepared, np.arange(9.0).reshape(3, 3) / 10)["per_landmark"]
    assert {k: v["within_radius"] for k, v in per.items()} == {"L": 2 / 3, "R": 0.5, "nose": 0.5}
    assert {k: v["confidence_mean"] for k, v in per.items()} == pytest.approx(
        {"L": 0.3, "R": 0.4, "nose": 0.35}
    )
    # of two children, by hand: 0 of 1 and 2 of 2, so that the variance is 2 (2² / 3² + 2² / 3²) / 9
    n, z2 = (2 / 9) / (16 / 81), 12.7062047**2  # of Student's t for one degree of freedom
    middle = (n * 2 / 3 + z2 / 2) / (n + z2)
    half = math.sqrt(z2) / (n + z2) * math.sqrt(n * 2 / 9 + z2 / 4)
    assert per["L"]["within_radius_ci"] == pytest.approx([middle - half, middle + half], rel=1e-5)


def test_what_a_confidence_was_worth(prepared, summarise):
    """Visible: 0.0 0.1 0.2 | 0.3 - 0.5 | 0.6 0.7 -, of which 0.1 0.2 0.3 0.6 were within 3 mm."""
    told = summarise(prepared, np.arange(9.0).reshape(3, 3) / 10)["confidence"]
    assert told["radius_mm"] == 3.0 and sum(b["n"] for b in told["bins"]) == 7
    squares = [0.0, 0.9**2, 0.8**2, 0.7**2, 0.5**2, 0.4**2, 0.7**2]
    assert told["brier"] == pytest.approx(sum(squares) / 7)
    right = sum(b["n"] * b["share"] for b in told["bins"])
    promised = sum(b["n"] * b["confidence"] for b in told["bins"])
    assert right == pytest.approx(4) and promised == pytest.approx(2.4)
    means = [b["confidence"] for b in told["bins"]]
    assert means == sorted(means)


def test_labels_of_no_face_have_no_measurement(prepared, make_tested, summarise):
    assert make_tested(prepared).faces.measurements == ()
    assert summarise(prepared)["measurements"] == {}
