"""`folds.csv`: the fold of a cross-validation that each case is in."""

from collections.abc import Sequence
from pathlib import Path

from fetal_jax.data.case_table import Case, find_shared_subjects, match_rows
from fetal_jax.errors import InputError
from fetal_jax.io.tables import read_table, shorten, write_table


def write_folds(path: Path, cases: Sequence[Case], folds: Sequence[str]) -> None:
    """Write the fold of each case."""
    write_table(path, ["case", "fold"], zip((c.name for c in cases), folds, strict=True))


def read_folds(
    path: Path, cases: Sequence[Case], folds: Sequence[str], others: Sequence[str]
) -> list[str]:
    """Read the fold of each case.

    Args:
      path: the table, as `write_folds` writes it.
      cases: of the data set.
      folds: their names; each must have cases.
      others: what may stand there instead of a fold.

    Raises:
      InputError: one line for each case that is not listed once or in a fold of another name, each
        subject in two folds, each fold without cases.
    """
    _, rows = read_table(path, required=("case", "fold"))
    problems: list[str] = []
    known = (*folds, *others)
    found: dict[str, str] = {}
    for name, where, row in match_rows(path, rows, [case.name for case in cases], problems):
        found[name] = row["fold"]
        if row["fold"] not in known:
            expected = f"a fold of {', '.join(known)}"
            problems.append(f"{where}: expected {expected}, got {row['fold']!r}")
    if missing := [case.name for case in cases if case.name not in found]:
        problems.append(f"{path}: expected a fold for each case, got none for {shorten(missing)}")
    assigned = [found.get(case.name, "") for case in cases]
    problems += find_shared_subjects(path, cases, assigned, "fold")
    problems += [
        f"{path}: expected cases in fold {fold}, got none" for fold in folds if fold not in assigned
    ]
    if problems:
        raise InputError(*problems)
    return assigned
