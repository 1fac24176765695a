"""A data set of links to some cases of another: a share of each age group, and all test cases.

python study/choose_ages.py COHORT OUTPUT --kind=even --cases=200
"""

import argparse
from pathlib import Path

import numpy as np
from linked_cases import link_cases, read_cases

ENDS = (24.0, 28.0, 32.0)  # weeks, as config.evaluation.age_groups_weeks


def choose(rows: list[dict], kind: str, count: int) -> list[dict]:
    """So many training rows: in the order of the table, or as many of each age group."""
    training = [row for row in rows if row["split"] != "test"]
    if kind == "drawn":
        return training[:count]
    groups = [
        int(np.searchsorted(ENDS, float(row["gestational_age_weeks"]), "right")) for row in training
    ]
    chosen, each = [], count // (len(ENDS) + 1)
    for group in range(len(ENDS) + 1):
        there = [row for row, one in zip(training, groups, strict=True) if one == group]
        if len(there) < each:
            raise SystemExit(f"expected {each} cases of age group {group}, got {len(there)}")
        chosen += there[:each]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--kind", choices=("drawn", "even"), required=True)
    parser.add_argument("--cases", type=int, default=200)
    asked = parser.parse_args()
    rows = read_cases(asked.cohort)
    tested = [row for row in rows if row["split"] == "test"]
    link_cases(asked.cohort, asked.output, choose(rows, asked.kind, asked.cases) + tested)


if __name__ == "__main__":
    main()
