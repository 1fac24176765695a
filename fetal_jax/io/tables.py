"""Small CSV tables, as spreadsheets save them: UTF-8, comma-separated, a header line."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.io.files import FilePath, compose, describe_link, write_atomically

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".ods")

Row = dict[str, str]  # column -> text, stripped; '' where the cell is empty or missing


def read_own_table(
    path: Path, columns: Sequence[str], advice: str = "give another --output"
) -> list[tuple[int, Row]]:
    """The rows of a table that this program wrote; none where there is no file.

    Args:
      columns: all of them, in order.
      advice: what to do where it is another table.

    Raises:
      InputError: those of `read_table`, or other columns.
    """
    if not path.exists():
        return []
    came, rows = read_table(path, required=columns)
    if tuple(came) != tuple(columns):
        raise InputError(
            f"{path}: expected the columns {','.join(columns)}, got {','.join(came)}; {advice}"
        )
    return rows


def read_table(path: FilePath, required: Sequence[str]) -> tuple[list[str], list[tuple[int, Row]]]:
    """Read a table into (columns, [(line number, row)]).

    A byte order mark is skipped, and so are rows without a single value. Columns are in lower case,
    with _ for a space between words; text is in Unicode's composed form, é as one code point.

    Args:
      path: the file.
      required: columns that must be there; others may be.

    Raises:
      InputError: no such file, not UTF-8, a required column missing, a column twice, or a row
        longer than the header; all such rows at once.
    """
    path = Path(path)
    try:
        lines = compose(path.read_text(encoding="utf-8-sig")).splitlines()
        rows = csv.reader(lines, strict=True)
        columns = ["_".join(name.split()).lower() for name in next(rows, [])]
        numbered = [(rows.line_num, [field.strip() for field in row]) for row in rows]
    except FileNotFoundError:
        came = describe_link(path) or "no such file"
        raise InputError(f"{path}: expected a table, got {came}") from None
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


def find_table(path: Path, problems: list[str]) -> bool:
    """Whether an optional table is there.

    Args:
      path: of the table.
      problems: a list to which a file is added that seems meant: the same name in capitals or with
        another ending, or a link to nothing.
    """
    if path.exists():
        return True
    if came := describe_link(path):
        problems.append(f"{path}: expected a table, got {came}")
    meant = [
        other.name
        for other in sorted(path.parent.iterdir())
        if other.is_file()
        and other.name != path.name
        and other.name.split(".")[0].casefold() == path.stem.casefold()
        and other.suffix.casefold() in TABLE_SUFFIXES
    ]
    if meant:
        problems.append(f"{path}: expected a table of this name, got {', '.join(meant)}")
    return False


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


def shorten(names: Sequence[object], most: int = 5, between: str = ", ") -> str:
    """The first `most` of many names, and how many more there are, on one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(map(str, names[:most])) + more
