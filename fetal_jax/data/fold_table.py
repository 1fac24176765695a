"""`folds.csv`: which fold of a cross-validation each case is in, to be written and read again."""

from pathlib import Path

from fetal_jax.data.case_table import Case
from fetal_jax.errors import InputError
from fetal_jax.io.tables import read_table, shorten, write_table


def write_folds(path: Path, cases: tuple[Case, ...], folds: list[str]) -> None:
    write_table(path, ["case", "fold"], zip((c.name for c in cases), folds, strict=True))


def read_folds(path: Path, cases: tuple[Case, ...], known: tuple[str, ...]) -> list[str]:
    """The fold of each case.

    Args:
      known: names that a fold can have.

    Raises:
      InputError: one line for each case that is not listed once, is listed in a fold of another
        name, or whose subject is in two folds; and for a fold that is empty.
    """
    _, rows = read_table(path, required=("case", "fold"))
    names, found, problems = {case.name for case in cases}, {}, []
    for line, row in rows:
        where, name, fold = f"{path}: line {line}", row["case"], row["fold"]
        if name not in names:
            problems.append(f"{where}: expected a case of this data set, got {name!r}")
        elif name in found:
            problems.append(f"{where}: expected each case once, got {name!r} again")
        elif fold not in known:
            problems.append(f"{where}: expected a fold of {', '.join(known)}, got {fold!r}")
        found.setdefault(name, fold)
    if missing := [case.name for case in cases if case.name not in found]:
        problems.append(f"{path}: expected a fold for each case, got none for {shorten(missing)}")
    by_subject: dict[str, set[str]] = {}
    for case in cases:
        by_subject.setdefault(case.subject, set()).add(found.get(case.name, ""))
    problems += [
        f"{path}: expected all cases of subject {subject!r} in one fold, got {', '.join(sorted(f))}"
        for subject, f in by_subject.items()
        if len(f) > 1 and not missing
    ]
    problems += [
        f"{path}: expected cases in fold {fold}, got none"
        for fold in known[:-1]
        if fold not in found.values()
    ]
    if problems:
        raise InputError(*problems)
    return [found[case.name] for case in cases]
