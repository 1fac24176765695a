"""What observers' readings come to: the numbers of agreement.json, and the tables beside it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import agreement, measurements, metrics, statistics
from fetal_jax.agreement import Correlation
from fetal_jax.data.observers import Observed
from fetal_jax.io.tables import write_table
from fetal_jax.measurements import Measurement
from fetal_jax.runs.observer import Found

PROGRAM = "the program"
DISTANCES_CSV, MEASUREMENTS_CSV = "distances.csv", "measurements.csv"
AGREEMENT_JSON = "agreement.json"
# At least so large a share of the cases with two observers were read by all: they are crossed.
CROSSED = 0.5
FARTHEST = 10  # pairs of points that are listed to be looked at


class Distance(NamedTuple):
    """Two readings of one landmark of one case; of the same observer where the names say so."""

    case: str
    subject: str
    label: str
    visible: bool
    observer: str
    other: str
    within: bool
    distance_mm: float


class MeasuredReadings(NamedTuple):
    """M measurements of every reading, from visible points; NaN where there is none.

    values: [N, A, R, M]; found: [N, M] of the program, None where it is no observer.
    """

    chosen: tuple[Measurement, ...]
    values: np.ndarray
    found: np.ndarray | None


def measure_readings(observed: Observed, found: Found | None) -> MeasuredReadings:
    """The craniofacial measurements of each reading, and of what the program found."""
    chosen = measurements.choose_measurements(observed.labels)

    def measure(points_mm: np.ndarray, visible: np.ndarray) -> np.ndarray:
        seen_mm = np.where(visible[..., None], points_mm, np.nan)
        return measurements.measure_faces(seen_mm, observed.labels, chosen)

    values = measure(observed.points_mm, observed.visible[:, None, None])
    return MeasuredReadings(
        chosen, values, None if found is None else measure(found.points_mm, observed.visible)
    )


def list_distances(observed: Observed, found: Found | None) -> Iterator[Distance]:
    """Every pair of first readings, of repeated ones, and of the program with each observer."""
    for n, case in enumerate(observed.cases):
        pairs = list(_list_pairs(observed, found, n))
        for i, label in enumerate(observed.labels):
            for observer, other, within, a_mm, b_mm in pairs:
                apart = float(np.linalg.norm(a_mm[i] - b_mm[i]))
                if np.isfinite(apart):
                    yield Distance(
                        *(case.name, case.subject, label, bool(observed.visible[n, i])),
                        *(observer, other, within, apart),
                    )


def _list_pairs(observed: Observed, found: Found | None, n: int):
    readers = [a for a in range(len(observed.annotators)) if observed.read[n, a, 0]]
    points_mm = observed.points_mm[n]
    for a, b in itertools.combinations(readers, 2):
        names = observed.annotators[a], observed.annotators[b]
        yield *names, False, points_mm[a, 0], points_mm[b, 0]
    for a in readers:
        name = observed.annotators[a]
        repeats = np.flatnonzero(observed.read[n, a])
        for r, s in itertools.combinations(repeats, 2):
            yield f"{name}-{r + 1}", f"{name}-{s + 1}", True, points_mm[a, r], points_mm[a, s]
    if found is not None and found.read[n]:
        for a in readers:
            yield PROGRAM, observed.annotators[a], False, found.points_mm[n], points_mm[a, 0]


def write_distances(path: Path, observed: Observed, found: Found | None) -> None:
    """distances.csv: a row for each case, landmark and pair of readings that both set it."""
    rows = (
        [*row[:3], int(row.visible), *row[4:6], f"{row.distance_mm:.4f}"]
        for row in list_distances(observed, found)
    )
    columns = ["case", "subject", "label", "visible", "observer", "other", "distance_mm"]
    write_table(path, columns, rows)


def write_readings(path: Path, observed: Observed, measured: MeasuredReadings) -> None:
    """measurements.csv: a row for each case, measurement and reading that has it.

    No file where the labels allow no measurement.
    """

    def list_rows():
        for n, case in enumerate(observed.cases):
            for i, one in enumerate(measured.chosen):
                for a, name in enumerate(observed.annotators):
                    for r, value in enumerate(measured.values[n, a, :, i]):
                        yield case, one, name, r + 1, value
                if measured.found is not None:
                    yield case, one, PROGRAM, 1, measured.found[n, i]

    rows = (
        [case.name, case.subject, one.key, one.name, one.unit, name, reading, f"{value:.3f}"]
        for case, one, name, reading, value in list_rows()
        if np.isfinite(value)
    )
    columns = ["case", "subject", "measurement", "name", "unit", "observer", "reading", "value"]
    if measured.chosen:
        write_table(path, columns, rows)


def summarise_agreement(
    observed: Observed, found: Found | None, measured: MeasuredReadings
) -> dict[str, object]:
    """The content of agreement.json.

    between, within, program: distances of `_describe` between two observers, between two readings
    by one, from the program to single observers. difference: of the same points, the program's
    mean distance to them minus theirs to each other. observers: of each, its cases and distance to
    the others. presence: label -> how many cases all, some or none marked. measurements: key ->
    intraclass correlations, and limits of agreement of each two observers. farthest: the rows of
    the visible points about which two observers differ most.
    """
    subjects, visible = observed.subjects, observed.visible
    describe = _bind_description(observed)
    between_mm = agreement.measure_between(observed.points_mm)
    numbers = {
        "cases": len(observed.cases),
        "subjects": len(set(subjects)),
        "annotators": list(observed.annotators),
        "labels": list(observed.labels),
        "crossed": _is_crossed(observed),
        "between": describe(between_mm),
        "within": describe(agreement.measure_within(observed.points_mm)),
        "program": None,
        "difference": None,
        "observers": _describe_observers(observed, found),
        "presence": _count_presence(observed, found),
        "measurements": _describe_measurements(observed, found, measured),
    }
    if found is not None:
        to_each = agreement.measure_to_each(observed.points_mm, found.points_mm)
        program_mm = metrics.mean_known(to_each, axis=1)
        numbers["program"] = {"cases": int(found.read.sum()), "notes": found.notes}
        numbers["program"] |= describe(program_mm)
        both = np.isfinite(program_mm) & np.isfinite(between_mm)
        numbers["difference"] = describe(np.where(both, program_mm - between_mm, np.nan))
        numbers["difference"]["between_mm"] = _mean(between_mm[both & visible])
        numbers["difference"]["program_mm"] = _mean(program_mm[both & visible])
    doubtful = (row for row in list_distances(observed, None) if row.visible and not row.within)
    farthest = sorted(doubtful, key=lambda row: -row.distance_mm)[:FARTHEST]
    numbers["farthest"] = [row._asdict() for row in farthest]
    return numbers


def _bind_description(observed: Observed):
    """values [N, L] mm, NaN where unknown -> n, mean with interval, spread; per landmark too."""

    def of(values_mm, counted) -> dict:
        row = metrics.summarise_errors(values_mm, counted, ())
        del row["success_rate"]
        interval = statistics.bootstrap_interval(values_mm, counted, observed.subjects)
        return row | {"d_mean_ci_mm": interval}

    def describe(values_mm: np.ndarray) -> dict:
        known = np.isfinite(values_mm)
        counted = known & observed.visible
        per = {
            label: of(values_mm[:, [i]], counted[:, [i]]) for i, label in enumerate(observed.labels)
        }
        completed = of(values_mm, known & ~observed.visible)
        return of(values_mm, counted) | {"completed": completed, "per_landmark": per}

    return describe


def _is_crossed(observed: Observed) -> bool:
    """Whether the observers read the same cases, so that their habits can be told apart."""
    readers = observed.read[:, :, 0].sum(axis=1)
    several = readers >= 2
    return bool(several.any() and np.mean(readers[several] == len(observed.annotators)) >= CROSSED)


def _describe_observers(observed: Observed, found: Found | None) -> dict[str, dict]:
    """Observer -> cases, how many of them twice, mean distance to the others."""
    describe, points_mm = _bind_description(observed), observed.points_mm
    described = {}
    for a, name in enumerate(observed.annotators):
        others = np.delete(points_mm, a, axis=1)
        to_each = agreement.measure_to_each(others, points_mm[:, a, 0])
        row = describe(metrics.mean_known(to_each, axis=1)) if others.shape[1] else {"n": 0}
        described[name] = {
            "cases": int(observed.read[:, a, 0].sum()),
            "repeated": int((observed.read[:, a].sum(axis=1) > 1).sum()),
        } | {key: value for key, value in row.items() if key not in ("completed", "per_landmark")}
        if found is not None:
            to_this = agreement.measure_to_each(points_mm[:, [a]], found.points_mm)[:, 0]
            described[name]["program_mm"] = _mean(to_this[np.isfinite(to_this) & observed.visible])
    return described


def _count_presence(observed: Observed, found: Found | None) -> dict[str, dict[str, int]]:
    """Label -> of the cases with two observers, how many of which all, some and none marked it.

    alone, missed: of the cases that the program read, where it marked a point that no observer did,
    and where it left out one that all did.
    """
    reads = observed.read[:, :, 0]
    several = reads.sum(axis=1) >= 2
    marked = np.isfinite(observed.points_mm[:, :, 0]).all(axis=-1)  # [N, A, L]
    every = (marked | ~reads[..., None]).all(axis=1) & several[:, None]
    none = ~marked.any(axis=1) & several[:, None]
    counts = {
        "n": np.broadcast_to(several[:, None], every.shape),
        "all": every,
        "some": several[:, None] & ~every & ~none,
        "none": none,
    }
    if found is not None:
        there = np.isfinite(found.points_mm).all(axis=-1)
        looked = found.read[:, None]
        counts |= {"alone": none & looked & there, "missed": every & looked & ~there}
    return {
        label: {name: int(each[:, i].sum()) for name, each in counts.items()}
        for i, label in enumerate(observed.labels)
    }


def _describe_measurements(
    observed: Observed, found: Found | None, measured: MeasuredReadings
) -> dict[str, dict]:
    """Measurement's key -> between (ICC), within (ICC of each who read twice), pairs (limits)."""
    subjects, names = observed.subjects, list(observed.annotators)
    first = measured.values[:, :, 0]  # [N, A, M]
    correlate = agreement.correlate_crossed if _is_crossed(observed) else agreement.correlate_nested
    described = {}
    for i, one in enumerate(measured.chosen):
        values = dict(zip(names, first[:, :, i].T, strict=True))
        repeated = {
            name: agreement.correlate_nested(measured.values[:, a, :, i], subjects)
            for a, name in enumerate(names)
        }
        if measured.found is not None:
            values[PROGRAM] = measured.found[:, i]
        pairs = []
        for a, b in itertools.combinations(reversed(values), 2):
            limits = agreement.measure_limits(values[a] - values[b], subjects)
            if limits is not None:
                pairs.append({"observer": a, "minus": b} | limits._asdict())
        described[one.key] = {
            "name": one.name,
            "unit": one.unit,
            "mean": _mean(first[np.isfinite(first[:, :, i]), i]),
            "between": _to_dict(correlate(first[:, :, i], subjects)),
            "within": {name: row._asdict() for name, row in repeated.items() if row is not None},
            "pairs": pairs,
        }
    return described


def _to_dict(row: Correlation | None) -> dict | None:
    return None if row is None else row._asdict()


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
