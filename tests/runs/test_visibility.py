"""Chances to be seen against their definitions, and the three ways to place what is hidden."""

from dataclasses import replace

import numpy as np
import pytest

from fetal_jax.runs.folder import write_json
from fetal_jax.runs.visibility import mirror_points, summarise_completion, summarise_visibility

MIRROR_INDEX = np.array([0, 2, 1, 4, 3, 5])
FACE = np.array([[4, 5.0, 4], [6.5, 4, 4.5], [1.5, 4, 4.5], [5, 4.5, 2], [3, 4.5, 2], [4, 5.5, 1]])


@pytest.fixture
def cases(make_prepared):
    """40 faces of 20 children; hidden are landmark 1 in every second and 5 in every fifth."""
    hidden = [(n, 1) for n in range(0, 40, 2)] + [(n, 5) for n in range(0, 40, 5)]
    points = np.tile(FACE, (40, 1, 1))
    subjects = [f"s{n // 2}" for n in range(40)]
    made = make_prepared(points, completed=hidden, subjects=subjects)
    return replace(made, true_mm=made.points_mm + [1.0, 0, 0])


def summarise(chance, cases, base=None, error_mm=None):
    error_mm = np.ones(chance.shape) if error_mm is None else error_mm
    return summarise_visibility(chance, base, error_mm, cases, min_visible=0.5)


def test_chances_that_know_it(cases):
    found = summarise(np.where(cases.visible, 0.9, 0.2), cases)
    assert found["n"] == 240 and found["hidden"] == 28
    assert found["auc"] == found["auc_within"] == 1.0
    assert found["auc_ci"] == [1.0, 1.0]
    assert found["brier"] == pytest.approx((212 * 0.01 + 28 * 0.04) / 240)
    assert found["false_present"]["share"] == found["false_absent"]["share"] == 0.0
    assert [b["share"] for b in found["bins"]] == [0.0, 1.0] or found["bins"][-1]["share"] == 1.0


def test_a_landmark_s_own_share_tells_landmarks_apart_and_not_scans(cases):
    shares = np.broadcast_to(cases.visible.mean(axis=0), cases.visible.shape)
    found = summarise(shares, cases, base=shares)
    assert found["auc_within"] == 0.5  # the same for all scans: every pair is a tie
    assert found["auc"] == found["auc_base"] > 0.8
    assert found["auc_gain_ci"] == [0.0, 0.0]
    assert found["brier"] == found["brier_base"]


def test_what_is_called_hidden_and_how_well_the_rest_is_found(cases):
    chance = np.where(cases.visible, 0.9, 0.2)
    chance[0, 1] = 0.7  # hidden, called visible
    chance[1, 0] = chance[3, 0] = 0.1  # visible, called hidden
    error_mm = np.where(cases.visible, 1.0, 5.0)
    found = summarise(chance, cases, error_mm=error_mm)
    assert found["false_present"]["share"] == pytest.approx(1 / 28)
    assert found["false_absent"]["share"] == pytest.approx(2 / 212)
    assert found["called_present"] == {"n": 211, "d_mean_mm": pytest.approx((210 + 5) / 211)}
    assert found["called_absent"] == {"n": 29, "d_mean_mm": pytest.approx((27 * 5 + 2) / 29)}


def test_only_what_is_known_counts(cases):
    """A landmark of which no file says anything, and a case in which nothing was judged."""
    judged = cases.judged.copy()
    judged[:, 5] = False
    chance = np.where(cases.visible, 0.9, 0.2)
    chance[1] = np.nan
    found = summarise(chance, replace(cases, judged=judged))
    assert (found["n"], found["hidden"]) == (39 * 5, 20)
    assert summarise(np.full(chance.shape, np.nan), cases) is None
    everything = replace(cases, visible=np.ones_like(cases.visible))
    assert summarise(chance, everything) is None


def test_the_mirror_is_that_of_the_face():
    """Faces in any pose, one side of which is nowhere: its landmarks come back."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.random(5, random_state=0).as_matrix()
    points = 10 * np.einsum("nij,lj->nli", turns, FACE) + 300.0
    found, chance = points.copy(), np.full((5, 6), 0.9)
    found[:, 1], chance[:, 1] = 0.0, 0.1
    mirrored = mirror_points(found, chance, MIRROR_INDEX)
    np.testing.assert_allclose(mirrored[:, 1], points[:, 1], atol=1e-2)
    np.testing.assert_allclose(mirrored[:, 3:5], points[:, 3:5], atol=1e-2)
    assert np.isnan(mirrored[:, [0, 2, 5]]).all()  # no partner, or one that cannot be seen


def test_three_ways_to_place_what_is_hidden(cases):
    """From the true points, 1 mm to the right of the annotated ones."""
    points_mm = cases.points_mm + [0.0, 3.0, 0.0]
    chance = np.where(cases.visible, 0.9, 0.2)
    found = summarise_completion(points_mm, cases.true_mm + 0.5, chance, cases, MIRROR_INDEX)
    assert found["from"] == "true"
    assert found["hidden"]["n"] == 28 and found["paired"]["n"] == 20
    assert found["hidden"]["found"]["d_mean_mm"] == pytest.approx(np.sqrt(10.0))
    assert found["hidden"]["shape"]["d_mean_mm"] == pytest.approx(0.5 * np.sqrt(3))
    assert "mirrored" not in found["hidden"]
    # FACE is its own mirror image
    assert found["paired"]["mirrored"]["d_mean_mm"] == pytest.approx(np.sqrt(10.0), rel=1e-3)
    unknown = replace(cases, true_mm=np.full_like(cases.true_mm, np.nan))
    found = summarise_completion(points_mm, points_mm, chance, unknown, None)
    assert found["from"] == "annotated" and found["hidden"]["shape"]["d_mean_mm"] == 3.0
    nothing = np.full_like(points_mm, np.nan)
    assert summarise_completion(points_mm, nothing, chance, cases, None) is None


def test_one_case_tells_nothing_within_a_landmark(cases, tmp_path):
    """Nor over subjects; and what is known can be written."""
    one = cases.select([0])
    found = summarise(np.where(one.visible, 0.9, 0.2), one, base=np.full(one.visible.shape, 0.8))
    assert found["auc"] == 1.0 and found["auc_within"] is None and found["auc_ci"] is None
    write_json(tmp_path / "results.json", found)
