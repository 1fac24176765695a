"""Observers' readings in numbers and tables, by hand on a line and on faces."""

import numpy as np
import pytest
from face_runs import FACE
from noise_runs import read_rows

from fetal_jax.data.case_table import Case
from fetal_jax.data.observers import Observed
from fetal_jax.runs import agreement
from fetal_jax.runs.agreement import PROGRAM
from fetal_jax.runs.observer import Found

NAN = np.nan


def make_observed(points_mm, labels, visible=None, subjects=None):
    """Readings [N, A, R, L, 3] of observers a, b, c; one that sets nothing is not there."""
    points_mm = np.asarray(points_mm, float)
    n = len(points_mm)
    subjects = subjects or [f"s{i}" for i in range(n)]
    cases = tuple(Case(f"c{i}", None, None, subjects[i]) for i in range(n))
    there = np.isfinite(points_mm).all(axis=-1).any(axis=-1)
    visible = np.ones((n, len(labels)), bool) if visible is None else np.asarray(visible, bool)
    return Observed(
        cases, tuple(labels), tuple("abc"[: points_mm.shape[1]]), points_mm, there, visible
    )


def on_a_line(x):
    """Points of which only x is not 0, NaN where x is."""
    x = np.asarray(x, float)
    return np.stack([x, 0 * x, 0 * x], axis=-1)


@pytest.fixture
def line():
    """Three cases, landmarks L and R; a read the first one twice, c the last one alone of them."""
    x = np.full((3, 3, 2, 2), NAN)
    x[0, :2, 0] = [0.0, 10.0], [2.0, 14.0]
    x[0, 0, 1] = [1.0, NAN]
    x[1, :2, 0] = [0.0, 5.0], [4.0, NAN]
    x[2, 1:, 0] = [0.0, 1.0], [30.0, 2.0]
    return make_observed(on_a_line(x), "LR", [[1, 1], [1, 1], [1, 0]])


@pytest.fixture
def found():
    """The program read the first two cases, R in one of them."""
    x = np.array([[1.0, 20.0], [4.0, NAN], [NAN, NAN]])
    return Found(on_a_line(x), np.array([True, True, False]), ["a note."])


def summarise(observed, found):
    return agreement.summarise_agreement(
        observed, found, agreement.measure_readings(observed, found)
    )


def test_distances_by_hand(line, found):
    numbers = summarise(line, found)
    assert (numbers["cases"], numbers["annotators"]) == (3, ["a", "b", "c"])
    between = numbers["between"]  # L: 2, 4, 30; R: 4, and 1 of a completed point
    assert between["n"] == 4 and between["d_mean_mm"] == 10.0
    assert between["completed"]["n"] == 1 and between["completed"]["d_mean_mm"] == 1.0
    assert between["per_landmark"]["L"]["d_mean_mm"] == 12.0
    low, high = between["per_landmark"]["L"]["d_mean_ci_mm"]
    assert 2.0 <= low < 12.0 < high <= 30.0
    assert numbers["within"]["n"] == 1 and numbers["within"]["d_mean_mm"] == 1.0
    # to single observers: L (1 + 1) / 2 and (4 + 0) / 2, R (10 + 6) / 2
    program, difference = numbers["program"], numbers["difference"]
    assert program["n"] == 3 and program["d_mean_mm"] == pytest.approx(11 / 3)
    # of the same points, theirs are 2, 4 and 4
    assert difference["d_mean_mm"] == pytest.approx((-1 - 2 + 4) / 3)
    assert difference["between_mm"] == pytest.approx(10 / 3)
    assert difference["program_mm"] == pytest.approx(11 / 3)
    b = numbers["observers"]["b"]
    assert (b["cases"], b["repeated"], b["n"]) == (3, 0, 4) and b["d_mean_mm"] == 10.0
    assert b["program_mm"] == pytest.approx((1 + 0 + 6) / 3)
    assert numbers["observers"]["a"]["repeated"] == 1
    first = numbers["farthest"][0]
    assert (first["case"], first["label"], first["observer"], first["other"]) == (
        "c2", "L", "b", "c"
    )  # fmt: skip
    assert len(numbers["farthest"]) == 4  # visible, and not of one observer
    assert numbers["measurements"] == {}


def test_an_observer_among_observers_is_as_near_as_they_are():
    """The program as a fourth one with the same error: no difference; without error: nearer."""
    rng = np.random.default_rng(0)
    truth = 20 * rng.normal(size=(40, 6, 3))
    read = truth[:, None, None] + rng.normal(size=(40, 3, 1, 6, 3))
    observed, everywhere = make_observed(read, "nopqrs"), np.ones(40, bool)
    alike = summarise(observed, Found(truth + rng.normal(size=truth.shape), everywhere, []))
    low, high = alike["difference"]["d_mean_ci_mm"]
    assert low < 0 < high
    # distances of normal errors: √(8 / π) times the sd of a difference, √2 and 1
    exact = summarise(observed, Found(truth, everywhere, []))
    unit = (8 / np.pi) ** 0.5
    assert exact["between"]["d_mean_mm"] == pytest.approx(2**0.5 * unit, abs=0.1)
    assert exact["program"]["d_mean_mm"] == pytest.approx(unit, abs=0.1)
    assert exact["difference"]["d_mean_ci_mm"][1] < -0.4


def test_who_marked_what(line, found):
    presence = summarise(line, found)["presence"]
    assert presence["L"] == {"n": 3, "all": 3, "some": 0, "none": 0, "alone": 0, "missed": 0}
    assert presence["R"] == {"n": 3, "all": 2, "some": 1, "none": 0, "alone": 0, "missed": 0}
    x = np.full((1, 2, 1, 2), NAN)
    x[0, :, 0, 0] = 1.0
    other = Found(on_a_line([[NAN, 3.0]]), np.array([True]), [])
    presence = summarise(make_observed(on_a_line(x), "LR"), other)["presence"]
    assert presence["L"] == {"n": 1, "all": 1, "some": 0, "none": 0, "alone": 0, "missed": 1}
    assert presence["R"] == {"n": 1, "all": 0, "some": 0, "none": 1, "alone": 1, "missed": 0}
    assert "alone" not in summarise(line, None)["presence"]["L"]


def make_faces(widths):
    """Faces [N, A, 1, L, 3] whose mouths have these widths [N, A], NaN where nobody looked."""
    face = np.array(list(FACE.values()), float)
    widths = np.asarray(widths, float)
    points = np.broadcast_to(face, (*widths.shape, *face.shape)).copy()
    for label, side in (("chL", -1), ("chR", 1)):
        points[..., list(FACE).index(label), 0] = side * widths / 2
    points[np.isnan(widths)] = NAN
    return points[:, :, None]


WIDTHS = np.array([[20, 22, 23], [24, 25, 29], [30, 31, 31], [26, 29, 28], [22, 23, 26]], float)


def test_observers_who_read_all_are_crossed():
    observed = make_observed(make_faces(WIDTHS), FACE)
    found = Found(make_faces(WIDTHS[:, :1] + 0.5)[:, 0, 0], np.ones(5, bool), [])
    numbers = summarise(observed, found)
    assert numbers["crossed"]
    mouth = numbers["measurements"]["mouth_width"]
    assert mouth["unit"] == "mm" and mouth["mean"] == pytest.approx(WIDTHS.mean())
    assert mouth["between"]["form"] == "ICC(2,1)" and mouth["between"]["n"] == 5
    assert mouth["within"] == {}
    pairs = {(pair["observer"], pair["minus"]): pair for pair in mouth["pairs"]}
    assert list(pairs) == [
        (PROGRAM, "c"), (PROGRAM, "b"), (PROGRAM, "a"), ("c", "b"), ("c", "a"), ("b", "a")
    ]  # fmt: skip
    assert pairs["b", "a"]["bias"] == pytest.approx((2 + 1 + 1 + 3 + 1) / 5)
    assert pairs[PROGRAM, "a"]["bias"] == pytest.approx(0.5)
    assert pairs[PROGRAM, "a"]["limits"] == pytest.approx([0.5, 0.5])


def test_observers_of_other_cases_are_not():
    apart = WIDTHS.copy()
    apart[[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]] = NAN
    numbers = summarise(make_observed(make_faces(apart), FACE), None)
    assert not numbers["crossed"]
    mouth = numbers["measurements"]["mouth_width"]["between"]
    assert mouth["form"] == "ICC(1,1)" and mouth["n"] == 5
    # within a case of two values: half the squared difference
    squares = [np.diff(row[np.isfinite(row)])[0] ** 2 / 2 for row in apart]
    assert mouth["sd"] ** 2 == pytest.approx(np.mean(squares))


def test_a_point_that_cannot_be_seen_is_not_measured_from():
    visible = np.ones((5, len(FACE)), bool)
    visible[:2, list(FACE).index("chL")] = False
    observed = make_observed(make_faces(WIDTHS), FACE, visible)
    measured = summarise(observed, None)["measurements"]
    assert measured["mouth_width"]["between"]["n"] == 3
    assert measured["inner_canthal"]["between"] is None  # of which all have the same


def test_the_tables(line, found, tmp_path):
    agreement.write_distances(tmp_path / "distances.csv", line, found)
    rows = read_rows(tmp_path / "distances.csv")
    assert rows[0] == {
        "case": "c0", "subject": "s0", "label": "L", "visible": "1",
        "observer": "a", "other": "b", "distance_mm": "2.0000",
    }  # fmt: skip
    pairs = [(row["observer"], row["other"]) for row in rows if row["case"] == "c0"]
    assert pairs[:4] == [("a", "b"), ("a-1", "a-2"), (PROGRAM, "a"), (PROGRAM, "b")]
    assert [row["visible"] for row in rows if row["case"] == "c2"] == ["1", "0"]

    observed = make_observed(make_faces(WIDTHS), FACE)
    measured = agreement.measure_readings(observed, None)
    agreement.write_readings(tmp_path / "measurements.csv", observed, measured)
    rows = read_rows(tmp_path / "measurements.csv")
    mouth = [row for row in rows if row["measurement"] == "mouth_width"]
    assert [float(row["value"]) for row in mouth] == WIDTHS.ravel().tolist()
    assert [row["observer"] for row in mouth[:3]] == ["a", "b", "c"]
    nothing = tmp_path / "none.csv"
    agreement.write_readings(nothing, line, agreement.measure_readings(line, None))
    assert not nothing.exists()
