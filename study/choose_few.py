"""Data sets of links for `few_cases.sh`: one to start from, and some of few training cases.

python study/choose_few.py phantom COHORT OUTPUT
python study/choose_few.py mouse MOUSE_CT OUTPUT
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from linked_cases import link_cases, read_cases

COUNTS = (2, 4, 8, 16)
SEEDS = (0, 1, 2)


def read_rows(root: Path) -> list[dict]:
    """The case table; the mouse heads have splits alone."""
    if (root / "cases.csv").exists():
        return read_cases(root)
    with (root / "split.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def choose_pools(kind: str, rows: list[dict]) -> tuple[list[dict], list[dict], list[dict]]:
    """Cases to start from, to choose few of, and to test on; the last two share no subject.

    Of the phantom the first site, and one half and the other of the second site's children. Of the
    mouse heads the training heads twice, since there are so few: only the landmarks differ.
    """
    test = [row for row in rows if row["split"] == "test"]
    train = [row for row in rows if row["split"] != "test"]
    if kind == "mouse":
        return train, train, test
    subjects = sorted({row["subject"] for row in test})
    first = set(subjects[: len(subjects) // 2])
    return (
        train,
        [row for row in test if row["subject"] in first],
        [row for row in test if row["subject"] not in first],
    )


def take(pool: list[dict], count: int, seed: int) -> list[dict]:
    """So many, one a subject; a larger choice of the same seed has the smaller one's."""
    one_each = list({row.get("subject", row["case"]): row for row in pool}.values())
    if len(one_each) < count:
        raise SystemExit(f"expected {count} subjects to choose from, got {len(one_each)}")
    order = np.random.default_rng(seed).permutation(len(one_each))
    return [one_each[i] for i in order[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("phantom", "mouse"))
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    asked = parser.parse_args()
    start, pool, test = choose_pools(asked.kind, read_rows(asked.root))

    def link(name: str, train: list[dict]) -> None:
        rows = [row | {"split": "train"} for row in train] + [
            row | {"split": "test"} for row in test
        ]
        link_cases(asked.root, asked.output / name, rows)

    link("start", start)
    for seed in SEEDS:
        for count in COUNTS:
            link(f"{count}-{seed}", take(pool, count, seed))


if __name__ == "__main__":
    main()
