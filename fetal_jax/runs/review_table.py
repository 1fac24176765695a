"""review.csv: which points of new scans to look at, where it pays most first."""

from collections.abc import Sequence
from pathlib import Path

from fetal_jax.io.tables import read_own_table, write_table
from fetal_jax.runs.columns import parse_numbers
from fetal_jax.runs.review import Review, sort_reviews

FILE = "review.csv"
COLUMNS = ("case", "label", "gain_mm", "why")


def write_reviews(path: Path, cases: Sequence[str], rows: Sequence[Review]) -> None:
    """Write the rows of some cases; those of others that are there already stay, in one order.

    Raises:
      InputError: a file of that name that is another table.
    """
    others = [row for row in read_reviews(path) if row.case not in cases]
    rounded = [row._replace(gain_mm=round(row.gain_mm, 3)) for row in rows]
    merged = sort_reviews(sorted([*others, *rounded], key=lambda row: row[:2]))
    write_table(path, COLUMNS, ([*row[:2], f"{row.gain_mm:.3f}", row.why] for row in merged))


def read_reviews(path: Path) -> list[Review]:
    """The rows of a table that `write_reviews` wrote; none where there is no file.

    Raises:
      InputError: it is another table.
    """
    rows = read_own_table(path, COLUMNS)
    gains = parse_numbers(path, rows, "gain_mm")
    return [
        Review(row["case"], row["label"], float(gain), row["why"])
        for (_, row), gain in zip(rows, gains, strict=True)
    ]
