"""Small CSV tables as spreadsheets save them."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically


def read_table(path, required: tuple[str, ...]) -> tuple[list[str], list[tuple[int, dict]]]:
    """Return (columns, [(line number, {column: text})]); every text is stripped, '' where empty.

    A byte order mark is skipped, and so are rows without a single value.

    Raises:
      InputError: no such file, not UTF-8, a required column missing, a column twice, or a row
        longer than the header; all such rows at once.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = csv.reader(lines, strict=True)
        columns = [name.strip() for name in next(rows, [])]
        numbered = [(rows.line_num, [field.strip() for field in row]) for row in rows]
    except FileNotFoundError:
        raise InputError(f"{path}: expected a table, got no such file") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path}: expected a comma-separated UTF-8 table, got {error}") from None

    header = ",".join(columns) or "an empty file"
    problems = [
        f"{path}: expected a column {name!r}, got {header}"
        for name in required
        if name not in columns
    ]
    problems += [
        f"{path}: expected each column once, got {name!r} twice"
        for name in sorted(set(columns))
        if name and columns.count(name) > 1
    ]
    problems += [
        f"{path}: line {line}: expected {len(columns)} fields, got {len(row)}"
        for line, row in numbered
        if len(row) > len(columns) and any(row[len(columns) :])
    ]
    if problems:
        raise InputError(*problems)
    empty = dict.fromkeys(columns, "")
    return columns, [
        (line, empty | dict(zip(columns, row, strict=False))) for line, row in numbered if any(row)
    ]


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a table in one piece, lines ending as on Unix."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())


def say_unused(path, columns, known, assumptions: list[str]) -> None:
    """Name the columns that nobody asked for: one of them may be a slip of the pen."""
    if unused := [name for name in columns if name and name not in known]:
        assumptions.append(f"{Path(path).name}, columns not used: {', '.join(unused)}")


def shorten(names, most: int = 5) -> str:
    """List the first few of many names on one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
