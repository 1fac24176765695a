"""What looks wrong with a data set's annotations, each file against all others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import plausibility
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.landmark_table import index_mirrors
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.tables import write_table

COLUMNS = ("case", "file", "landmarks", "kind", "away_mm", "exchanged_mm", "times_usual", "what")
COPY = "copy"


class Finding(NamedTuple):
    """One thing that looks wrong with a landmark file.

    kind, away_mm, exchanged_mm, times: of `plausibility.Doubt`; or "copy", of two cases.
    """

    case: str
    path: Path
    labels: tuple[str, ...]
    kind: str
    away_mm: float
    exchanged_mm: float
    times: float
    what: str


class Annotations(NamedTuple):
    """The landmark files of a data set, R of them.

    cases: R indices; points_mm: [R, L, 3] RAS+, NaN where absent; seen: [R, L] bool.
    """

    cases: np.ndarray
    paths: tuple[Path, ...]
    points_mm: np.ndarray
    seen: np.ndarray


def read_annotations(dataset: Dataset, coordinate_system: str | None) -> Annotations:
    """Every landmark file, each case's own and its annotators'.

    Raises:
      InputError: one that cannot be read.
    """
    absent = np.full(3, np.nan)
    cases, paths, points_mm, seen = [], [], [], []
    for i, case in enumerate(dataset.cases):
        listed = [case.visible is None or label in case.visible for label in dataset.labels]
        for path in filter(None, (case.landmarks_path, *case.reading_paths)):
            points = read_landmarks(path, coordinate_system=coordinate_system)
            cases.append(i)
            paths.append(path)
            points_mm.append([points.get(label, absent) for label in dataset.labels])
            seen.append(listed)
    return Annotations(np.array(cases), tuple(paths), np.array(points_mm), np.array(seen))


def check_annotations(dataset: Dataset, annotations: Annotations) -> list[Finding]:
    """What looks wrong, the worst first.

    Raises:
      ValueError: the data set says nothing of what is usual, see `plausibility.cross_check`.
    """
    cases = [dataset.cases[i] for i in annotations.cases]
    usual, deviations = plausibility.cross_check(
        annotations.points_mm,
        [case.subject for case in cases],
        index_mirrors(dataset.landmarks),
        annotations.seen,
    )
    several = len(set(annotations.cases)) < len(cases)
    doubts = plausibility.find_doubts(
        usual, deviations, annotations.points_mm, [case.name for case in cases] if several else None
    )
    findings = [
        Finding(
            cases[i].name,
            annotations.paths[i],
            tuple(dataset.labels[k] for k in doubt.landmarks),
            doubt.kind,
            doubt.away_mm,
            doubt.exchanged_mm,
            doubt.times,
            plausibility.describe_doubt(doubt, dataset.labels),
        )
        for i, of_reading in enumerate(doubts)
        for doubt in of_reading
    ]
    return _find_copies(annotations, [case.name for case in cases]) + _sort(findings)


def describe_worst(dataset: Dataset, coordinate_system: str | None) -> str | None:
    """What looks wrong, in a line; None where nothing does, or nothing can be said."""
    annotations = read_annotations(dataset, coordinate_system)
    try:
        findings = check_annotations(dataset, annotations)
    except ValueError:
        return None
    if not findings:
        return None
    count, worst = int(np.isfinite(annotations.points_mm).all(axis=-1).sum()), findings[0]
    return (
        f"{len(findings)} of {count} annotated points or their files look wrong, most of all "
        f"{worst.path}: {worst.what}; --mode=check lists them"
    )


def _sort(findings: list[Finding]) -> list[Finding]:
    """Whole files, then exchanges, then single points; within each the furthest first."""
    order = ("mirrored", "unlike", "exchanged")
    rank = {kind: i for i, kind in enumerate(order)}
    return sorted(findings, key=lambda one: (rank.get(one.kind, len(order)), -one.times))


def _find_copies(annotations: Annotations, names: Sequence[str]) -> list[Finding]:
    """Files of two cases with the same points: one of them is of another scan."""
    first: dict[bytes, int] = {}
    copies = []
    for i, points in enumerate(annotations.points_mm):
        if not np.isfinite(points).any():
            continue
        j = first.setdefault(np.round(points, 3).tobytes(), i)
        if names[j] != names[i]:
            what = f"its points are those of {annotations.paths[j].name}: a file of another scan"
            nan = float("nan")
            copies.append(Finding(names[i], annotations.paths[i], (), COPY, nan, nan, nan, what))
    return copies


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """A table with a row for each."""

    def tell(value: float, form: str = "{:.2f}") -> str:
        return form.format(value) if np.isfinite(value) else ""

    rows = (
        [
            one.case,
            one.path,
            ";".join(one.labels),
            one.kind,
            tell(one.away_mm),
            tell(one.exchanged_mm),
            tell(one.times, "{:.1f}"),
            one.what,
        ]
        for one in findings
    )
    write_table(path, COLUMNS, rows)
