"""What looks wrong with a data set's annotations, each file against all others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import plausibility
from fetal_jax.data.dataset import Dataset, read_case_points, read_readings
from fetal_jax.data.landmark_table import index_mirrors
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


class Readings(NamedTuple):
    """The landmark files of a data set, R of them.

    cases: R indices; points_mm: [R, L, 3] RAS+, NaN where absent; seen: [R, L] bool.
    """

    cases: np.ndarray
    paths: tuple[Path, ...]
    points_mm: np.ndarray
    seen: np.ndarray


def read_all(dataset: Dataset, coordinate_system: str | None) -> Readings:
    """Every landmark file, each case's own and its annotators'.

    Raises:
      InputError: one that cannot be read.
    """
    cases, paths, points_mm, seen = [], [], [], []
    for i, case in enumerate(dataset.cases):
        system = dict(coordinate_system=coordinate_system)
        own, visible, _ = read_case_points(case, dataset.labels, **system)
        readings = list(read_readings(case, dataset.labels, **system))
        files = [*case.readings]
        if case.landmarks_path:
            files, readings = [case.landmarks_path, *files], [own, *readings]
        for path, points in zip(files, readings, strict=True):
            cases.append(i)
            paths.append(path)
            points_mm.append(points)
            # of a point that the case's own file lacks nothing is known
            seen.append(visible | ~np.isfinite(own).all(axis=-1))
    return Readings(np.array(cases), tuple(paths), np.stack(points_mm), np.stack(seen))


def check_annotations(dataset: Dataset, readings: Readings) -> list[Finding]:
    """What looks wrong, the worst first.

    Raises:
      ValueError: the data set says nothing of what is usual, see `plausibility.cross_check`.
    """
    cases = [dataset.cases[i] for i in readings.cases]
    usual, deviations = plausibility.cross_check(
        readings.points_mm,
        [case.subject for case in cases],
        index_mirrors(dataset.landmarks),
        readings.seen,
    )
    several = len(set(readings.cases)) < len(cases)
    doubts = plausibility.find_doubts(
        usual, deviations, readings.points_mm, [case.name for case in cases] if several else None
    )
    findings = [
        Finding(
            cases[i].name,
            readings.paths[i],
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
    return _find_copies(readings, [case.name for case in cases]) + _sort(findings)


def describe_worst(dataset: Dataset, coordinate_system: str | None) -> str | None:
    """What looks wrong, in a line; None where nothing does, or nothing can be said."""
    try:
        findings = check_annotations(dataset, read_all(dataset, coordinate_system))
    except ValueError:
        return None
    if not findings:
        return None
    worst = findings[0]
    return (
        f"{len(findings)} annotations look wrong, as in {worst.path}: {worst.what}; --mode=check "
        "lists them"
    )


def _sort(findings: list[Finding]) -> list[Finding]:
    """Whole files, then exchanges, then single points; within each the furthest first."""
    order = ("mirrored", "unlike", "exchanged")
    rank = {kind: i for i, kind in enumerate(order)}
    return sorted(findings, key=lambda one: (rank.get(one.kind, len(order)), -one.times))


def _find_copies(readings: Readings, names: Sequence[str]) -> list[Finding]:
    """Files of two cases with the same points: one of them is of another scan."""
    first: dict[bytes, int] = {}
    copies = []
    for i, points in enumerate(readings.points_mm):
        if not np.isfinite(points).any():
            continue
        j = first.setdefault(np.round(points, 3).tobytes(), i)
        if names[j] != names[i]:
            what = f"its points are those of {readings.paths[j].name}: a file of another scan"
            nan = float("nan")
            copies.append(Finding(names[i], readings.paths[i], (), COPY, nan, nan, nan, what))
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
