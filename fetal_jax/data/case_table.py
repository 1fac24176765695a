"""`cases.csv` and `split.csv`: whose each case is, and what it is used for."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.io.tables import read_table, say_unused, shorten

SPLITS = ("train", "validation", "test")
# A column of cases.csv -> what holds where the column, or a cell of it, is empty.
CASE_DEFAULTS = {
    "subject": "each case is its own subject",
    "site": "the site is unknown",
    "gestational_age_weeks": "the age is unknown",
    "split": "no split is named",
    "visible": "all points that are there are visible",
}


@dataclass(frozen=True)
class Case:
    """One volume and its landmarks: a file of their own, single annotators' readings, or both."""

    name: str
    volume_path: Path
    landmarks_path: Path | None
    subject: str
    readings: tuple[Path, ...] = ()
    site: str = ""
    age_weeks: float = math.nan
    split: str = ""  # '' or one of SPLITS
    visible: frozenset[str] | None = None  # None: every point that is there


def read_case_table(
    path: Path, cases, labels, problems, assumptions, *, split_elsewhere: bool = False
) -> dict[str, Case]:
    """Fill in `cases` (name -> Case) from cases.csv; `labels` None leaves `visible` unchecked.

    With `split_elsewhere` nothing is said about splits that this table leaves open. What is wrong
    goes to the list `problems`, what had to be assumed to `assumptions`.
    """
    defaults = {k: v for k, v in CASE_DEFAULTS.items() if k != "split" or not split_elsewhere}
    everything = "; ".join(defaults.values())
    if not path.exists():
        assumptions.append(f"no {path.name}: {everything}")
        return cases
    try:
        columns, rows = read_table(path, required=("case",))
    except InputError as error:
        problems += error.problems
        return cases
    listed, cases = {}, dict(cases)
    for line, row in rows:
        name, where = row["case"], f"{path}: line {line}"
        if not _is_new_case(name, where, cases, listed, problems):
            continue
        listed[name] = row
        visible = row.get("visible", "").split()
        unknown = [label for label in visible if labels is not None and label not in labels]
        if unknown:
            problems.append(f"{where}: expected known labels in visible, got {shorten(unknown)}")
        cases[name] = replace(
            cases[name],
            subject=row.get("subject") or name,
            site=row.get("site", ""),
            age_weeks=_parse_age(row.get("gestational_age_weeks", ""), where, problems),
            split=_parse_split(row.get("split", ""), where, problems),
            visible=frozenset(visible) if visible else None,
        )
    for column, default in defaults.items():
        blank = [name for name, row in listed.items() if not row.get(column)]
        if column not in columns:
            assumptions.append(f"{path.name} has no column {column}: {default}")
        elif blank:
            assumptions.append(f"{path.name}, empty {column}: {default} ({shorten(blank)})")
    if unlisted := [name for name in cases if name not in listed]:
        assumptions.append(f"not listed in {path.name}: {shorten(unlisted)}: {everything}")
    say_unused(path, columns, ("case", *CASE_DEFAULTS), assumptions)
    return cases


def replace_splits(path: Path, cases, problems, assumptions) -> dict[str, Case]:
    """Put the splits of a case,split table in place of those that `cases` has."""
    try:
        _, rows = read_table(path, required=("case", "split"))
    except InputError as error:
        problems += error.problems
        return cases
    splits: dict[str, str] = {}
    for line, row in rows:
        where = f"{path}: line {line}"
        if _is_new_case(row["case"], where, cases, splits, problems):
            splits[row["case"]] = _parse_split(row["split"], where, problems)
    if unlisted := [name for name in cases if not splits.get(name)]:
        assumptions.append(f"no split named in {path.name}: {shorten(unlisted)}")
    return {name: replace(case, split=splits.get(name, "")) for name, case in cases.items()}


def find_shared_subjects(source: Path, cases: dict[str, Case]) -> list[str]:
    """A subject whose cases stand in two splits would be learnt and then tested on."""
    by_subject: dict[str, dict[str, str]] = {}
    for case in cases.values():
        if case.split:
            by_subject.setdefault(case.subject, {}).setdefault(case.split, case.name)
    return [
        f"{source}: expected all cases of subject {subject!r} in one split, got "
        + " and ".join(f"{name} in {split}" for split, name in splits.items())
        for subject, splits in by_subject.items()
        if len(splits) > 1
    ]


def _is_new_case(name: str, where: str, cases, listed, problems) -> bool:
    if name not in cases:
        problems.append(f"{where}: expected a case of this data set, got {name!r}")
    elif name in listed:
        problems.append(f"{where}: expected each case once, got {name!r} again")
    return name in cases and name not in listed


def _parse_age(text: str, where: str, problems) -> float:
    try:
        age = float(text or "nan")
    except ValueError:
        age = -1.0
    if text and not 0 < age < math.inf:
        problems.append(f"{where}: expected gestational_age_weeks as a number, got {text!r}")
    return age


def _parse_split(text: str, where: str, problems) -> str:
    if text and text not in SPLITS:
        problems.append(f"{where}: expected a split of {', '.join(SPLITS)}, got {text!r}")
    return text
