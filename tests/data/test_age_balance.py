"""Cases of rare ages train more often, none of them without bound."""

import numpy as np
import pytest

from fetal_jax.data.age_balance import MOST, weigh_ages


def test_equal_ages_weigh_the_same():
    np.testing.assert_allclose(weigh_ages([25.0] * 7), 1.0)
    np.testing.assert_allclose(weigh_ages([]), [])


def test_two_ages_far_apart_count_the_same_in_all():
    weights = weigh_ages([22.0] * 6 + [34.0] * 2)
    np.testing.assert_allclose(weights, [8 / 12] * 6 + [2.0] * 2, rtol=1e-6)


def test_neighbouring_ages_share_what_they_weigh():
    """A week apart is hardly another age: two lone cases weigh more apart than together."""
    crowd = [24.0] * 8
    apart, together = weigh_ages([*crowd, 31.0, 36.0]), weigh_ages([*crowd, 31.0, 32.0])
    assert apart[-1] > together[-1] > 1.5


@pytest.mark.parametrize("rare", [1, 2, 5])
def test_no_weight_is_above_the_bound_and_their_mean_is_1(rare):
    weights = weigh_ages([20.0 + 0.01 * i for i in range(200)] + [36.0] * rare)
    assert weights.mean() == pytest.approx(1.0)
    assert weights.max() == pytest.approx(MOST)
    assert weights[:200].max() < 1.2  # those next to the middle of a crowd a little less


def test_unknown_ages_count_once():
    weights = weigh_ages([20.0, np.nan, 20.0, 20.0, 34.0, np.nan])
    assert weights[1] == weights[5] == 1.0 and weights.mean() == pytest.approx(1.0)
