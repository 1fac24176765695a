"""What looks wrong with predictions is said in words, where looking pays most first."""

import numpy as np
import pytest
from face_shapes import LABELS, MIRROR_INDEX, make_faces

from fetal_jax import plausibility
from fetal_jax.runs.review import Review, describe_cases, list_reviews, sort_reviews

CASES = [f"c{i}" for i in range(6)]


@pytest.fixture(scope="module")
def usual():
    usual, _ = plausibility.cross_check(make_faces(), [str(i) for i in range(60)], MIRROR_INDEX)
    return usual


@pytest.fixture
def points_mm():
    return make_faces(n=6, seed=1)


def review(usual, points_mm, confidence=None, **settings):
    confidence = np.full(points_mm.shape[:2], 0.9) if confidence is None else confidence
    asked = {"min_confidence": 0.5, "radius_mm": 4.0} | settings
    return list_reviews(CASES, LABELS, points_mm, confidence, usual, **asked)


def test_each_point_has_a_row_and_what_is_right_no_word(usual, points_mm):
    rows = review(usual, points_mm)
    assert {row[:2] for row in rows} == {(case, label) for case in CASES for label in LABELS}
    assert [row.gain_mm for row in rows] == sorted((row.gain_mm for row in rows), reverse=True)
    assert all(row.why == "" and 0 <= row.gain_mm < 0.5 for row in rows)
    assert describe_cases(rows) == {}


def test_a_point_that_the_others_do_not_explain_comes_first(usual, points_mm):
    points_mm[2, 7] += (15.0, 0, 0)
    first = review(usual, points_mm)[0]
    assert first[:2] == ("c2", "prn") and first.gain_mm == pytest.approx(0.1 * 15, abs=0.3)
    assert first.why.startswith("prn is 1") and "where the other landmarks expect it" in first.why


def test_of_two_alike_the_one_that_the_network_is_not_sure_of_comes_first(usual, points_mm):
    points_mm[[1, 4], 7] += (15.0, 0, 0)
    confidence = np.full(points_mm.shape[:2], 0.9)
    confidence[4, 7] = 0.25
    first, second = review(usual, points_mm, confidence)[:2]
    assert (first[:2], second[:2]) == (("c4", "prn"), ("c1", "prn"))
    assert first.why.endswith("; confidence 0.25") and "confidence" not in second.why
    assert first.gain_mm == pytest.approx(0.75 * 15, rel=0.2)


def test_both_of_an_exchanged_pair_are_named_and_said_once(usual, points_mm):
    points_mm[3, [0, 1]] = points_mm[3, [1, 0]]
    rows = review(usual, points_mm)
    assert {row[:2] for row in rows[:2]} == {("c3", "exL"), ("c3", "exR")}
    said = describe_cases(rows)
    assert list(said) == ["c3"] and said["c3"].count("look exchanged") == 1


def test_a_scan_unlike_those_of_training_stands_before_its_points(usual, points_mm):
    points_mm[5] = np.random.default_rng(2).uniform(-40, 40, points_mm[5].shape)
    points_mm[0, 7] += (12.0, 0, 0)
    rows = review(usual, points_mm)
    assert rows[0][:2] == ("c5", "") and "do not lie as those of the other cases" in rows[0].why
    of_points = [row.gain_mm for row in rows if row.case == "c5" and row.label]
    assert rows[0].gain_mm == pytest.approx(sum(of_points)) and len(of_points) == 11
    assert list(describe_cases(rows)) == ["c5", "c0"]


def test_notes_and_points_that_are_not_there(usual, points_mm):
    points_mm[1, 2] = np.nan
    notes = {"c1": {"": "300 mm long", "n": "n is outside the volume"}}
    rows = review(usual, points_mm, notes=notes)
    assert ("c1", "alL") not in {row[:2] for row in rows}
    why = {row[:2]: row.why for row in rows if row.why}
    assert why == {("c1", ""): "300 mm long", ("c1", "n"): "n is outside the volume"}
    assert describe_cases(rows) == {"c1": "300 mm long; n is outside the volume"}


def test_without_what_is_usual_the_confidence_orders(points_mm):
    confidence = np.random.default_rng(0).uniform(0, 1, points_mm.shape[:2])
    rows = review(None, points_mm, confidence)
    place = np.unravel_index(np.argmin(confidence), confidence.shape)
    assert rows[0][:2] == (CASES[place[0]], LABELS[place[1]])
    assert rows[0].gain_mm == pytest.approx(4.0 * (1 - confidence.min()))
    assert sum(bool(row.why) for row in rows) == (confidence < 0.5).sum()


def test_words_of_a_case_are_few():
    rows = [Review("a", f"l{i}", 1.0, f"l{i} is wrong") for i in range(9)]
    rows += [Review("b", f"l{i}", 5.0, "confidence 0.10") for i in range(7)]
    said = describe_cases(sort_reviews(rows))
    assert list(said) == ["b", "a"]
    assert said["b"] == "low confidence: l0, l1, l2, l3, l4 and 2 more"
    assert said["a"] == "l0 is wrong; l1 is wrong; l2 is wrong; l3 is wrong and 5 more"
