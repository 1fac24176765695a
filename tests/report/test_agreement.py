"""What the page of observers says."""

import pytest

from fetal_jax.report import agreement


def make_difference(mean, ci, n=90):
    return {
        "n": n, "d_mean_mm": mean, "d_mean_ci_mm": ci, "program_mm": 1.5 + mean, "between_mm": 1.5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "ci", "said"),
    [
        pytest.param(
            -0.1,
            [-0.3, 0.1],
            "as near to the observers as they are to each other, to within 0.30 mm: 1.40 mm from a "
            "single one of them, who are 1.50 mm apart on the same 90 points: difference -0.10 mm "
            "(95 % interval -0.30 to +0.10)",
            id="no difference",
        ),
        pytest.param(-0.2, [-0.3, -0.1], "nearer to the observers than they are", id="nearer"),
        pytest.param(0.2, [0.1, 0.3], "farther from the observers than they are", id="farther"),
        pytest.param(0.2, None, "difference +0.20 mm, of one subject", id="no interval"),
    ],
)
def test_the_program_beside_the_observers(mean, ci, said):
    assert said in agreement.describe_difference(make_difference(mean, ci))


def test_the_program_with_nothing_in_common():
    said = agreement.describe_difference(make_difference(0.0, None, n=0))
    assert said == "The program and two observers have no visible point in common."
