"""A data set of links to some cases of another."""

import csv
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("volumes", "landmarks", "truth")


def read_cases(root: Path) -> list[dict]:
    """The rows of its cases.csv."""
    with (root / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def link_cases(root: Path, output: Path, rows: Sequence[dict]) -> None:
    """The files of the cases in `rows` as links, and `rows` as the new data set's cases.csv."""
    for folder in FOLDERS:
        (output / folder).mkdir(parents=True, exist_ok=True)
        for row in rows:
            for path in (root / folder).glob(f"{row['case']}.*"):
                link = output / folder / path.name
                if not link.exists():
                    link.symlink_to(path.resolve())
    if (root / "landmarks.csv").exists():
        (output / "landmarks.csv").write_bytes((root / "landmarks.csv").read_bytes())
    with (output / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
