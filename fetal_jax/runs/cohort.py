"""Which children a run learned from and was tested on, as data.json has it."""

from collections.abc import Iterable, Sequence

import numpy as np

from fetal_jax.data.case_table import Case


def describe_cohort(cases: Sequence[Case]) -> dict:
    """How many scans and subjects, the scans of each site ('' unknown), the ages that are known.

    Returns:
      cases, subjects, sites {name: scans}, age_weeks [youngest, oldest] or None.
    """
    sites = sorted({case.site for case in cases})
    ages = [case.age_weeks for case in cases if np.isfinite(case.age_weeks)]
    return {
        "cases": len(cases),
        "subjects": len({case.subject for case in cases}),
        "sites": {site: sum(case.site == site for case in cases) for site in sites},
        "age_weeks": [float(min(ages)), float(max(ages))] if ages else None,
    }


def join_cohorts(cohorts: Iterable[dict]) -> dict:
    """Of cohorts that share no subject."""
    every = list(cohorts)
    ages = [age for one in every for age in one["age_weeks"] or ()]
    sites = sorted({site for one in every for site in one["sites"]})
    return {
        "cases": sum(one["cases"] for one in every),
        "subjects": sum(one["subjects"] for one in every),
        "sites": {site: sum(one["sites"].get(site, 0) for one in every) for site in sites},
        "age_weeks": [min(ages), max(ages)] if ages else None,
    }
