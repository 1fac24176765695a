"""`cases.csv` and `split.csv`: the subject, site, age and split of each case."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fetal_jax.data.spelling import fold_spelling, quote_alike
from fetal_jax.errors import InputError
from fetal_jax.io.tables import Row, find_table, note_unused_columns, read_table, shorten

MOST_WEEKS = 50
SPLITS = ("train", "validation", "test")
# column of cases.csv -> what is assumed where the column is missing or a cell is empty
CASE_DEFAULTS = {
    "subject": "each case is its own subject",
    "site": "the site is unknown",
    "gestational_age_weeks": "the age is unknown",
    "split": "no split is named",
    "visible": "all points that are there are visible",
}


class Readings(NamedTuple):
    """One annotator's files of a case: the first reading, and then repeated ones."""

    annotator: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Case:
    """One volume and its landmarks: a file of its own, single annotators' readings, or both."""

    name: str
    volume_path: Path | None  # None only where a data set without volumes was allowed
    landmarks_path: Path | None
    subject: str
    readings: tuple[Readings, ...] = ()
    truth_path: Path | None = None  # where the points really are, which only a phantom knows
    site: str = ""
    age_weeks: float = math.nan
    split: str = ""  # '' or one of SPLITS
    visible: frozenset[str] | None = None  # labels; None: every point that is there

    @property
    def reading_paths(self) -> tuple[Path, ...]:
        """The files of all readings."""
        return tuple(path for one in self.readings for path in one.paths)


def read_case_table(
    path: Path,
    cases: Mapping[str, Case],
    labels: Collection[str] | None,
    problems: list[str],
    assumptions: list[str],
    *,
    split_elsewhere: bool = False,
) -> dict[str, Case]:
    """The cases with what cases.csv says of them.

    Args:
      path: of the table, which may be missing.
      cases: name -> Case of the files.
      labels: which `visible` may name; None leaves it unchecked.
      problems: a list to which each problem is added.
      assumptions: a list to which each assumption is added.
      split_elsewhere: splits are named in another table: one missing here is no assumption.
    """
    defaults = {k: v for k, v in CASE_DEFAULTS.items() if k != "split" or not split_elsewhere}
    everything = "; ".join(defaults.values())
    if not find_table(path, problems):
        assumptions.append(f"no {path.name}: {everything}")
        return dict(cases)
    try:
        columns, rows = read_table(path, required=("case",))
    except InputError as error:
        problems += error.problems
        return dict(cases)
    listed, cases = {}, dict(cases)
    for name, where, row in match_rows(path, rows, cases, problems):
        listed[name] = row
        visible = _parse_visible(row.get("visible", ""), labels)
        unknown = [label for label in visible or () if labels is not None and label not in labels]
        if set(row.get("visible", "")) & {";"} and not visible:
            problems.append(f"{where}: expected labels or none in visible, got ';'")
        if unknown:
            spaced = any(len(label.split()) > 1 for label in labels)
            how = ", separated by ; as some have spaces" if spaced else ""
            problems.append(
                f"{where}: expected known labels in visible{how}, got {shorten(unknown)}"
            )
        cases[name] = replace(
            cases[name],
            subject=row.get("subject") or name,
            site=row.get("site", ""),
            age_weeks=_parse_age(row.get("gestational_age_weeks", ""), where, problems),
            split=_parse_split(row.get("split", ""), where, problems),
            visible=None if visible is None else frozenset(visible),
        )
    problems += _find_alike(path, [case.subject for case in cases.values()])
    for column, default in defaults.items():
        blank = [name for name, row in listed.items() if not row.get(column)]
        if column not in columns:
            assumptions.append(f"{path.name} has no column {column}: {default}")
        elif blank:
            assumptions.append(f"{path.name}, empty {column}: {default} ({shorten(blank)})")
    if unlisted := [name for name in cases if name not in listed]:
        assumptions.append(f"not listed in {path.name}: {shorten(unlisted)}: {everything}")
    note_unused_columns(path, columns, ("case", *CASE_DEFAULTS), assumptions)
    return cases


def replace_splits(
    path: Path, cases: Mapping[str, Case], problems: list[str], assumptions: list[str]
) -> dict[str, Case]:
    """The cases with the splits of a table with columns case and split, and no others.

    Args:
      path: of the table.
      cases: name -> Case.
      problems: a list to which each problem is added.
      assumptions: a list to which each assumption is added.
    """
    try:
        _, rows = read_table(path, required=("case", "split"))
    except InputError as error:
        problems += error.problems
        return dict(cases)
    splits = {
        name: _parse_split(row["split"], where, problems)
        for name, where, row in match_rows(path, rows, cases, problems)
    }
    if unlisted := [name for name in cases if not splits.get(name)]:
        assumptions.append(f"no split named in {path.name}: {shorten(unlisted)}")
    return {name: replace(case, split=splits.get(name, "")) for name, case in cases.items()}


def match_rows(
    path: Path, rows: Iterable[tuple[int, Row]], cases: Collection[str], problems: list[str]
) -> Iterator[tuple[str, str, Row]]:
    """Yield (case, where in the file, row) of each row that names a case for the first time.

    Args:
      path: of the table.
      rows: (line number, row), as `read_table` returns them.
      cases: the names of the data set's cases.
      problems: a list to which rows of an unknown case, or of a case again, are added.
    """
    listed = set()
    for line, row in rows:
        name, where = row["case"], f"{path}: line {line}"
        if name not in cases:
            problems.append(f"{where}: expected a case of this data set, got {name!r}")
        elif name in listed:
            problems.append(f"{where}: expected each case once, got {name!r} again")
        else:
            listed.add(name)
            yield name, where, row


def find_shared_subjects(
    source: Path, cases: Iterable[Case], parts: Iterable[str], kind: str
) -> list[str]:
    """A problem for each subject whose cases are in two parts: it would be trained and tested on.

    Args:
      source: the file to blame.
      cases: the cases.
      parts: the part of each case, '' where none is named.
      kind: what a part is called: "split" or "fold".
    """
    by_subject: dict[str, dict[str, str]] = {}
    for case, part in zip(cases, parts, strict=True):
        if part:
            by_subject.setdefault(case.subject, {}).setdefault(part, case.name)
    return [
        f"{source}: expected all cases of subject {subject!r} in one {kind}, got "
        + " and ".join(f"{name} in {part}" for part, name in first_cases.items())
        for subject, first_cases in by_subject.items()
        if len(first_cases) > 1
    ]


def _find_alike(path: Path, subjects: Iterable[str]) -> list[str]:
    """A problem for subjects that are one child to a person: S01 and s01, 7, 007 and 7.0, s_1 and
    s-1, or what differs by letters that cannot be seen or told apart.

    They would train and test.
    """
    spellings: dict[str, list[str]] = {}
    for subject in dict.fromkeys(filter(None, subjects)):
        key = re.sub(r"(?<=\d)\.0+$", "", fold_spelling(subject))  # a spreadsheet's number
        key = re.sub(r"\d+", lambda m: m[0].lstrip("0") or "0", key)
        key = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\d)", "", key)  # child 3, child_3, child3
        spellings.setdefault(re.sub(r"[\s_-]+", "-", key), []).append(subject)
    return [
        f"{path}: expected each subject in one spelling, got {quote_alike(alike)}"
        for alike in spellings.values()
        if len(alike) > 1
    ]


def _parse_visible(text: str, labels: Collection[str] | None) -> list[str] | None:
    """The labels that can be seen; None where nothing is said, no label where "none" is."""
    if not text.strip():
        return None
    if text.strip().casefold() == "none" and (labels is None or text.strip() not in labels):
        return []
    if ";" in text or (labels is not None and text.strip() in labels):
        return [label.strip() for label in text.split(";") if label.strip()]
    return text.split()


def _parse_age(text: str, where: str, problems: list[str]) -> float:
    try:
        age = float(text or "nan")
    except ValueError:
        age = -1.0
    if text and not 0 < age <= MOST_WEEKS:
        problems.append(
            f"{where}: expected gestational_age_weeks as a number up to {MOST_WEEKS}, got {text!r}"
        )
    return age


def _parse_split(text: str, where: str, problems: list[str]) -> str:
    split = text.casefold()
    if split and split not in SPLITS:
        problems.append(f"{where}: expected a split of {', '.join(SPLITS)}, got {text!r}")
    return split
