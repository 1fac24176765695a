"""Radii that hold the truth as often as they say, in cohorts whose errors are known."""

import math

import jax
import numpy as np
import pytest

from fetal_jax.conformal import (
    Region,
    Scale,
    enough_subjects,
    find_radius,
    fit_region,
    fit_scale,
)

SHARE, LENGTH = 0.9, 6
SCALES_MM = np.array([0.5, 0.8, 1.0, 1.5, 2.0, 4.0])


def draw_cohort(rng, subjects, *, together=0.0, slope=0.5, lost=0.0, scans=(1, 1, 2, 3)):
    """(errors, masses, present, names) of so many children, some with several scans.

    together: of the variance of log errors, what all points of a child share.
    slope: how much surer the network is of what it finds better.
    lost: share of children in whose scans all points are eight times as far off.
    """
    place = np.repeat(np.arange(subjects), rng.choice(scans, subjects))
    n = len(place)
    known = rng.standard_normal((n, LENGTH))  # to the network
    shared = rng.standard_normal(subjects)[place, None]
    chance = np.sqrt(together) * shared + np.sqrt(1 - together) * rng.standard_normal((n, LENGTH))
    error_mm = SCALES_MM * np.exp(0.5 * chance - slope * known)
    error_mm *= np.where(rng.random(subjects) < lost, 8.0, 1.0)[place, None]
    present = rng.random((n, LENGTH)) < 0.95
    return error_mm, 1 / (1 + np.exp(-known)), present, [f"s{i}" for i in place]


def count_held(region, error_mm, mass, present):
    radius_mm = np.asarray(find_radius(mass, region))
    return (error_mm <= radius_mm)[present].mean()


@pytest.mark.parametrize("subjects", [6, 30])
@pytest.mark.parametrize(
    ("together", "lost"),
    [
        pytest.param(0.0, 0.0, id="each point by itself"),
        pytest.param(0.4, 0.0, id="points of a child together"),
        pytest.param(0.8, 0.0, id="points of a child nearly as one"),
        pytest.param(0.4, 0.08, id="some scans lost"),
    ],
)
def test_new_children_s_points_are_held_as_often_as_promised(subjects, together, lost):
    """In the mean over cohorts; few children whose points go together cost larger radii."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(80):
        drawn = draw_cohort(rng, subjects, together=together, lost=lost)
        region = fit_region(*drawn, SHARE)
        if math.isinf(region.size):  # it is said that nothing can be
            continue
        new = draw_cohort(rng, 60, together=together, lost=lost, scans=(1,))
        held.append(count_held(region, *new[:3]))
    mean, error = np.mean(held), np.std(held) / np.sqrt(len(held))
    assert SHARE - 3 * error < mean < SHARE + 0.035 + 3 * error


def test_scales_are_recovered_and_the_unsure_have_larger_radii():
    rng = np.random.default_rng(1)
    error_mm, mass, present, names = draw_cohort(rng, 600, slope=0.7)
    region = fit_region(error_mm, mass, present, names, SHARE)
    assert region.scale.slope == pytest.approx(0.7, abs=0.03) and region.subjects == 600
    ratios = np.exp(np.array(region.scale.log_mm)) / SCALES_MM
    np.testing.assert_allclose(ratios / ratios.mean(), 1.0, rtol=0.06)
    low, high = (np.asarray(find_radius(np.full((1, LENGTH), m), region)) for m in (0.2, 0.8))
    np.testing.assert_allclose(low / high, 16**0.7, rtol=0.1)  # logits of log 4 either way
    for i in range(LENGTH):  # not only all together
        own = present[:, i]
        radius_mm = np.asarray(find_radius(mass, region))[own, i]
        assert (error_mm[own, i] <= radius_mm).mean() == pytest.approx(SHARE, abs=0.025)


def test_a_confidence_that_tells_nothing_changes_no_radius():
    rng = np.random.default_rng(2)
    error_mm, mass, present, names = draw_cohort(rng, 400, slope=0.0)
    assert fit_scale(error_mm, mass, present).slope < 0.03
    rising = fit_scale(error_mm * np.exp(mass), mass, present)
    assert rising.slope == 0.0  # the surer the farther off: nothing to build on


def test_masses_that_are_all_the_same_say_nothing():
    """But for rounding."""
    rng = np.random.default_rng(5)
    error_mm = rng.exponential(size=(60, 3))
    mass = np.full((60, 3), 0.4) + 1e-16 * rng.standard_normal((60, 3))
    assert fit_scale(error_mm, mass, mass > 0).slope == 0.0


def test_a_landmark_with_few_points_has_the_scale_of_the_others():
    """Shrunk by what chance makes of its mean; one that nobody has is as all are."""
    rng = np.random.default_rng(3)
    error_mm = np.exp(rng.standard_normal((40, 5)))  # all as far off
    counted = np.ones((40, 5), bool)
    counted[2:, 3] = counted[:, 4] = False
    error_mm[:2, 3] = 20.0
    scale = fit_scale(error_mm, np.full((40, 5), 0.5), counted)
    logs = np.array(scale.log_mm)
    assert np.ptp(logs[:3]) < 0.4 and logs[:3].max() < logs[3]
    own = np.log(20.0)  # in the mean, of two points
    assert logs[3] - logs[:3].mean() < 0.7 * (own - np.log(error_mm[:, :3]).mean())
    assert logs[:3].min() - 0.2 < logs[4] < logs[:3].max() + 0.2


def test_a_landmark_that_is_always_as_far_off_and_one_that_is_seldom():
    """Of one mean logarithm; each radius holds nine of ten."""
    rng = np.random.default_rng(6)
    error_mm = np.exp([0.1, 1.0] * rng.standard_normal((3000, 2)))
    sure = np.full(error_mm.shape, 0.5)
    region = fit_region(error_mm, sure, sure > 0, [f"s{i}" for i in range(3000)], SHARE)
    radius_mm = np.asarray(find_radius(sure[0], region))
    np.testing.assert_allclose(radius_mm, np.exp([0.128, 1.28]), rtol=0.08)
    held = (error_mm <= radius_mm).mean(axis=0)
    np.testing.assert_allclose(held, SHARE, atol=0.03)


def test_the_radius_by_hand():
    region = Region(0.9, 2.0, Scale((0.0, np.log(3.0)), 0.5, -np.log(9.0), np.log(9.0)), 20)
    mass = np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])  # logits of 0, ±log 9, beyond
    expected = [[2.0, 6.0], [2.0 / 3, 18.0], [2.0 / 3, 18.0]]
    np.testing.assert_allclose(jax.jit(lambda m: find_radius(m, region))(mass), expected, 1e-5)
    assert np.isnan(find_radius(mass, None)).all()


@pytest.mark.parametrize("cases", [1, 2, 3, 8])
def test_whatever_is_absent_every_landmark_has_a_scale(cases):
    """One validation case, a landmark that none of them has, errors that are all the same."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counted = rng.random((cases, 5)) < rng.choice([0.1, 0.5, 0.9])
        error_mm = rng.choice([np.full((cases, 5), 2.0), rng.exponential(2.0, (cases, 5))])
        mass = rng.random((cases, 5))
        scale = fit_scale(error_mm, mass, counted)
        assert np.isfinite([*scale.log_mm, scale.slope, scale.low, scale.high]).all()
        region = fit_region(error_mm, mass, counted, [str(i) for i in range(cases)], 0.9)
        assert not np.isnan(np.asarray(find_radius(np.float32(mass), region))).any()


def test_too_few_children_say_nothing():
    rng = np.random.default_rng(4)
    few = fit_region(*draw_cohort(rng, 5), SHARE)
    assert math.isinf(few.size) and few.subjects == 5
    assert np.isposinf(find_radius(np.full((1, LENGTH), 0.5), few)).all()
    error_mm, mass, present, names = draw_cohort(rng, 6)
    assert math.isfinite(fit_region(error_mm, mass, present, names, SHARE).size)
    nobody = fit_region(error_mm, mass, np.zeros_like(present), names, SHARE)
    assert math.isinf(nobody.size) and nobody.subjects == 0
    none = np.zeros((0, LENGTH))
    assert math.isinf(fit_region(none, none, none > 0, [], SHARE).size)


def test_children_whose_points_are_as_one_must_be_enough():
    """Eight of them are no more than eight points: the largest of these is no 90 %."""
    assert [enough_subjects(share) for share in (0.5, 0.8, 0.9, 0.95)] == [6, 6, 9, 19]
    error_mm = np.tile(np.arange(1.0, 10.0)[:, None], (1, 5))
    sure, names = np.full(error_mm.shape, 0.5), [f"s{i}" for i in range(9)]
    few = fit_region(error_mm[:8], sure[:8], sure[:8] > 0, names[:8], SHARE)
    assert math.isinf(few.size)
    region = fit_region(error_mm, sure, sure > 0, names, SHARE)
    assert float(find_radius(sure[:1], region)[0, 0]) >= 9.0


def test_a_child_counts_once_however_many_scans_it_has():
    """One child with a hundred bad scans among thirty with a good one."""
    error_mm = np.concatenate([np.full((100, 1), 9.0), np.linspace(1.0, 2.0, 30)[:, None]])
    names = ["bad"] * 100 + [f"s{i}" for i in range(30)]
    sure = np.full(error_mm.shape, 0.5)
    region = fit_region(error_mm, sure, sure > 0, names, 0.8)
    assert float(find_radius(sure[:1], region)[0, 0]) < 2.5


def test_misuse_says_what_came():
    ones = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"three arrays \[N, L\], got \(2, 3\), \(2, 2\)"):
        fit_region(ones, ones[:, :2], ones > 0, ["a", "b"], 0.9)
    with pytest.raises(ValueError, match="a share between 0 and 1, got 1.0"):
        fit_region(ones, ones, ones > 0, ["a", "b"], 1.0)
