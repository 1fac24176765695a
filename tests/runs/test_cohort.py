"""Which children a run learned from."""

from pathlib import Path

import pytest

from fetal_jax.data.case_table import Case
from fetal_jax.runs.cohort import describe_cohort, join_cohorts


def make_case(name, subject, site, weeks):
    return Case(name, Path(name), None, subject=subject, site=site, age_weeks=weeks)


NAN = float("nan")
FIRST = [
    make_case("a", "s", "x", 30.0),
    make_case("b", "s", "x", 22.5),
    make_case("c", "t", "", 25),
]


def test_scans_subjects_sites_and_ages():
    found = describe_cohort(FIRST)
    assert found == {
        "cases": 3, "subjects": 2, "sites": {"": 1, "x": 2}, "age_weeks": [22.5, 30.0],
    }  # fmt: skip
    unknown = describe_cohort([make_case("d", "u", "x", NAN)])
    assert unknown["age_weeks"] is None
    assert join_cohorts([found, unknown]) == {
        "cases": 4, "subjects": 3, "sites": {"": 1, "x": 3}, "age_weeks": [22.5, 30.0],
    }  # fmt: skip


@pytest.mark.parametrize("cohorts", [[], [describe_cohort([])]])
def test_nobody(cohorts):
    nobody = {"cases": 0, "subjects": 0, "sites": {}, "age_weeks": None}
    assert join_cohorts(cohorts) == nobody
