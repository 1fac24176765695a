"""Turns and shifts by arithmetic, and what is said of errors that are known."""

import csv

import numpy as np
import pytest

from fetal_jax.geometry import apply_affine
from fetal_jax.runs import alignment
from fetal_jax.runs.alignment import KINDS, Moved


def test_a_turn_by_hand():
    """A quarter turn about S, at (1, 0, 0): the axis stays, R goes to A."""
    turn = alignment.make_motion("turned", np.array([0, 0, 1.0]), 90, np.array([1.0, 0, 0]))
    points = np.array([[1.0, 0, 5], [3.0, 0, 0], [np.nan, 0, 0]])
    moved = apply_affine(turn, points)
    np.testing.assert_allclose(moved[:2], [[1.0, 0, 5], [1.0, 2.0, 0]], atol=1e-12)
    assert np.isnan(moved[2]).any()


def test_a_shift_by_hand():
    shift = alignment.make_motion("shifted", np.array([0, 0.6, 0.8]), 10, np.full(3, 9.0))
    np.testing.assert_allclose(apply_affine(shift, np.ones((1, 3))), [[1.0, 7.0, 9.0]])
    with pytest.raises(ValueError, match="expected a motion of"):
        alignment.make_motion("scaled", np.ones(3), 1, np.zeros(3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_amount_of_nothing_moves_nothing(kind):
    motion = alignment.make_motion(kind, np.array([0.6, 0, 0.8]), 0, np.array([7.0, 8, 9]))
    np.testing.assert_array_equal(motion, np.eye(4))


def test_directions_are_even_and_come_from_the_seed():
    drawn = alignment.sample_directions(4000, seed=3)
    for directions in drawn.values():
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
        # of a uniform direction each axis has mean 0 and variance 1/3
        np.testing.assert_allclose(directions.mean(axis=0), 0.0, atol=5 / np.sqrt(3 * 4000))
        np.testing.assert_allclose((directions**2).mean(axis=0), 1 / 3, atol=0.03)
    again = alignment.sample_directions(4000, seed=3)
    np.testing.assert_array_equal(again["turned"], drawn["turned"])
    assert (alignment.sample_directions(4000, seed=4)["turned"] != drawn["turned"]).any()


def test_the_middle_of_a_face():
    points = np.array([[0.0, 0, 0], [2.0, 4, 6], [np.nan] * 3])
    np.testing.assert_allclose(alignment.find_centre(points), [1.0, 2, 3])
    assert np.isnan(alignment.find_centre(points[2:])).all()


@pytest.fixture
def moved():
    """Four children of two landmarks; at the k-th amount errors are k + 1 times as large."""
    made = {}
    for kind, (_, amounts) in KINDS.items():
        at_rest = np.array([[1.0, 2], [3, 4], [5, 6], [7, 100]])
        error_mm = at_rest[None] * (1 + np.arange(len(amounts)))[:, None, None]
        inside = np.ones(error_mm.shape, bool)
        inside[-1, 0] = False
        counted = np.ones((4, 2), bool)
        counted[3, 1] = False
        made[kind] = Moved(error_mm, inside, counted)
    return made


def test_ratios_stay_in_pairs(moved):
    """Scans differ widely, but each by the same factor: the ratio has no width, the mean has."""
    rows = alignment.summarise_alignment(moved, ["a", "b", "c", "d"])
    assert [row["degrees"] for row in rows["turned"]] == list(alignment.TURNS_DEG)
    for k, row in enumerate(rows["shifted"]):
        assert row["n"] == 7 and row["mm"] == alignment.SHIFTS_MM[k]
        assert row["d_mean_mm"] == pytest.approx(4.0 * (k + 1))
        assert row["ratio"] == pytest.approx(k + 1)
        assert row["ratio_ci"] == pytest.approx([k + 1, k + 1])
        low, high = row["d_mean_ci_mm"]
        assert low < 0.8 * row["d_mean_mm"] and high > 1.2 * row["d_mean_mm"]
    assert [row["outside"] for row in rows["turned"]][-2:] == pytest.approx([0.0, 2 / 7])


def test_the_table(moved, tmp_path):
    alignment.write_moved(tmp_path / "a.csv", ["a", "b", "c", "d"], moved)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * sum(len(amounts) for _, amounts in KINDS.values())
    [row] = [r for r in rows if (r["case"], r["motion"], r["amount"]) == ("d", "shifted", "5")]
    assert (row["unit"], row["points"], row["error_mm"]) == ("mm", "1", "14.000")
