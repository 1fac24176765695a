"""Small CSV tables, as spreadsheets save them: UTF-8, comma-separated, a header line."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.io.files import FilePath, write_atomically

Row = dict[str, str]  # column -> text, stripped; '' where the cell is empty or missing


def read_table(path: FilePath, required: Sequence[str]) -> tuple[list[str], list[tuple[int, Row]]]:
    """Read a table into (columns, [(line number, row)]).

    A byte order mark is skipped, and so are rows without a single value.

    Args:
      path: the file.
      required: columns that must be there; others may be.

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


def write_table(path: FilePath, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table whole or not at all, with Unix line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())


def note_unused_columns(
    path: FilePath, columns: Iterable[str], known: Collection[str], assumptions: list[str]
) -> None:
    """Append to `assumptions` the columns that are not `known`: one may be misspelt."""
    if unused := [name for name in columns if name and name not in known]:
        assumptions.append(f"{Path(path).name}, columns not used: {', '.join(unused)}")


def shorten(names: Sequence[object], most: int = 5) -> str:
    """The first `most` of many names, and how many more there are, on one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
