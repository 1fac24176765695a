"""Runs to be compared: read from their folders, and what the table says of each.

A run is tested against the reference on the points that both have.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from fetal_jax import statistics
from fetal_jax.errors import InputError
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.learning_curve import LearningCurve, read_curve, still_falls
from fetal_jax.runs.point_table import PointRows
from fetal_jax.runs.results import EXTERNAL, TEST, read_parts, read_results
from fetal_jax.runs.summary import ENSEMBLE, name_age

PARTS = (TEST, EXTERNAL)
REFERENCE_TITLE = "EMD-regularised, ω 0.5"  # of configs/emd.py
# Keys of the config that a title speaks of, or that say nothing about what was done.
TITLE_KEYS = ("loss.", "model.name", "rpn.", "aligned.on")
SILENT_KEYS = (
    *("data.labels", "crossval."),
    *("log.", "report.", "devices.", "model.remat"),
)
# Keys that a title leaves out: between two runs of one title they may be all that differs.
LOSS_WEIGHTS = ("loss.lambda1", "loss.lambda2")


@dataclass(frozen=True)
class VisibleErrors:
    """Errors of visible landmarks.

    errors_mm: (case, label) -> mm, the mean over models.
    subjects: case -> subject.
    every_mm: [n] of each model, for a distribution.
    ages: case -> its age group, where that is known.
    """

    errors_mm: dict[tuple[str, str], float]
    subjects: dict[str, str]
    every_mm: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ages: dict[str, str] = field(default_factory=dict)

    def arrange(self, keys: Iterable[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(errors [N, L] mm, which are among `keys` [N, L], subjects N)."""
        keys = list(keys)
        cases = sorted({case for case, _ in keys})
        labels = sorted({label for _, label in keys})
        errors = np.zeros((len(cases), len(labels)))
        counted = np.zeros(errors.shape, bool)
        rows, columns = ({name: i for i, name in enumerate(names)} for names in (cases, labels))
        for case, label in keys:
            place = rows[case], columns[label]
            errors[place], counted[place] = self.errors_mm[case, label], True
        return errors, counted, [self.subjects[case] for case in cases]


@dataclass(frozen=True)
class ComparedRun:
    """One row of the table: a run or a cross-validation.

    title: of its setting, as tables call it.
    missing: what there is still to do; '' once the run is finished.
    results: of results.json; None while the run is not finished.
    numbers: name of PARTS -> numbers of `summary.summarise_parts`.
    points: name of PARTS -> the points that they are of.
    curve: of the error on validation cases, where there are some.
    each: the runs of several seeds that this is the mean of, see `seeds.pool_seeds`; its folder is
      that of the first.
    """

    folder: Path
    config: dict
    title: str
    missing: str = ""
    results: dict | None = None
    numbers: dict[str, dict] = field(default_factory=dict)
    points: dict[str, VisibleErrors] = field(default_factory=dict)
    curve: LearningCurve | None = None
    each: tuple["ComparedRun", ...] = ()


def read_run(folder: Path, find_title: Callable[[Mapping], str]) -> ComparedRun:
    """Read a run or a cross-validation, finished or not.

    Args:
      find_title: what tables call the setting of a config.

    Raises:
      InputError: the folder is neither.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: expected the folder of a run, with config.json, got none")
    config = run_folder.read_json(folder / "config.json")
    try:
        title = find_title(config)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: expected a run's config, got {error!r}") from None
    if not (folder / "results.json").exists():
        return ComparedRun(folder, config, title, missing=_describe_missing(folder, config))
    results = read_results(folder)
    parts = read_parts(folder, results)
    parts = {name: parts[name] for name in PARTS if name in parts}
    return ComparedRun(
        folder,
        config,
        title,
        results=results,
        numbers={name: part.numbers for name, part in parts.items()},
        points={name: _collect_errors(part.points, config) for name, part in parts.items()},
        curve=read_curve(folder),
    )


def _describe_missing(folder: Path, config: dict) -> str:
    if not (folder / run_folder.FOLDS_CSV).exists():
        return "its results.json is missing"
    names = [f"fold{fold + 1}" for fold in range(config["crossval"]["folds"])]
    left = [name for name in names if not (folder / name / "results.json").exists()]
    return f"{', '.join(left)} of {len(names)} missing" if left else "its folds are not pooled"


def _collect_errors(rows: PointRows, config: dict) -> VisibleErrors:
    rows = rows.select(rows.visible)
    ends = config["evaluation"].get("age_groups_weeks")  # an older run has none
    weeks = dict(zip(rows.case, rows.age_weeks, strict=True))
    ages = {case: name_age(age, ends) for case, age in weeks.items() if ends and np.isfinite(age)}
    every: dict[tuple[str, str], list[float]] = {}
    for case, label, error_mm in zip(rows.case, rows.label, rows.error_mm, strict=True):
        every.setdefault((case, label), []).append(error_mm)
    errors_mm = {key: float(np.mean(values)) for key, values in every.items()}
    subjects = dict(zip(rows.case, rows.subject, strict=True))
    return VisibleErrors(errors_mm, subjects, rows.error_mm, ages)


def compare_runs(runs: Sequence[ComparedRun]) -> dict:
    """The rows of the table, as comparison.json has them.

    Returns:
      reference: title of the row that the others are tested against; labels: landmarks that all
      rows have, where some have more, else None; rows: for each run what the table shows; pairs:
      name of PARTS -> each two of them tested against each other.
    """
    finished = [run for run in runs if run.results is not None]
    reference = next(
        (run for run in finished if run.title == REFERENCE_TITLE),
        finished[0] if finished else None,
    )
    labels = _find_common_labels(finished)
    rows = [
        {
            "folder": str(run.folder),
            "setting": run.title,
            "differs": _find_differences(run, reference or run),
            "missing": run.missing,
            "seeds": [one.config.get("seed") for one in run.each or (run,)],
            "falling": run.curve is not None and still_falls(run.curve),
            **{name: _describe(run.numbers.get(name)) for name in PARTS},
        }
        for run in runs
    ]
    pairs = {}
    for name in PARTS:
        pairs[name] = _test_pairs(runs, name)
        if reference is not None:
            place = next(i for i, run in enumerate(runs) if run is reference)
            _add_tests(rows, place, pairs[name], name)
        if labels:
            for row, run in zip(rows, runs, strict=True):
                if row[name]:
                    row[name]["common"] = _describe_common(run.points[name], labels)
    title = reference and reference.title
    return {"reference": title, "labels": labels, "rows": rows, "pairs": pairs}


def _find_common_labels(runs: Sequence[ComparedRun]) -> list[str] | None:
    """Landmarks that every run has, if some run has others too."""
    each = [list(run.numbers[TEST]["per_landmark"]) for run in runs]
    common = [label for label in (each[0] if each else []) if all(label in one for one in each)]
    return common if any(len(one) > len(common) for one in each) else None


def _find_differences(run: ComparedRun, reference: ComparedRun) -> dict:
    """Config keys, beside those that a title speaks of, that differ from the reference's."""
    here, there = (flatten_dict(one.config, sep=".") for one in (run, reference))
    differing = [key for key in here | there if here.get(key) != there.get(key)]
    shown = [key for key in differing if not key.startswith(TITLE_KEYS + SILENT_KEYS)]
    if run.title == reference.title:
        shown += [key for key in LOSS_WEIGHTS if key in differing]
    return {key: here.get(key) for key in shown}


def _describe(numbers: dict | None) -> dict | None:
    if numbers is None or numbers["d_mean_mm"] is None:
        return None
    ensemble, over_ages = numbers.get(ENSEMBLE), numbers.get("age_mean")  # an older run has none
    return {
        "cases": numbers["cases"],
        "subjects": numbers["subjects"],
        "points": numbers["landmarks"],
        "models": numbers.get("models"),
        "d_mean_mm": numbers["d_mean_mm"],
        "ci_mm": numbers["d_mean_ci_mm"],
        "argmax_d_mean_mm": numbers["argmax_d_mean_mm"],
        "seed_sd_mm": numbers.get("seed_sd_mm"),
        "sd_mm": numbers["d_sd_mm"],
        "median_mm": numbers["d_median_mm"],
        "success_rate": numbers["success_rate"],
        "success_rate_ci": numbers.get("success_rate_ci"),  # an older run has none
        "guess_mm": numbers["guess_d_mean_mm"],
        "annotators_apart_mm": numbers["annotators"] and numbers["annotators"]["apart_mm"],
        ENSEMBLE: _describe_mean(ensemble),
        "over_ages": _describe_mean(over_ages),
    }


def _describe_mean(numbers: dict | None) -> dict | None:
    return numbers and {"d_mean_mm": numbers["d_mean_mm"], "ci_mm": numbers["d_mean_ci_mm"]}


def _describe_common(points: VisibleErrors, labels: Sequence[str]) -> dict:
    errors, counted, subjects = points.arrange(k for k in points.errors_mm if k[1] in labels)
    return {
        "points": int(counted.sum()),
        "d_mean_mm": float(errors[counted].mean()),
        "ci_mm": statistics.bootstrap_interval(errors, counted, subjects),
    }


def _test_pairs(runs: Sequence[ComparedRun], name: str) -> list[dict]:
    """Each two runs on the points of a part that both have, numbered as in `runs`.

    difference_mm: of the first's subject means from the second's, in the mean; over_ages_mm, with
    its interval: the mean over age groups of the difference, None where no two groups are known;
    p_holm: corrected for all of these pairs.
    """
    pairs = []
    for (i, one), (j, other) in itertools.combinations(enumerate(runs), 2):
        a, b = one.points.get(name), other.points.get(name)
        keys = a.errors_mm.keys() & b.errors_mm.keys() if a and b else ()
        if not keys:
            continue
        _, mine = statistics.subject_means(*a.arrange(keys))
        _, theirs = statistics.subject_means(*b.arrange(keys))
        pair = {"rows": [i, j], "subjects": len(mine)}
        pair["difference_mm"] = float(np.mean(mine - theirs))
        pair["over_ages_mm"], pair["over_ages_ci_mm"] = _compare_over_ages(a, b, keys)
        pair["p"] = statistics.paired_permutation(mine, theirs)
        pairs.append(pair)
    for pair, p in zip(pairs, statistics.correct_holm([one["p"] for one in pairs]), strict=True):
        pair["p_holm"] = p
    return pairs


def _compare_over_ages(
    one: VisibleErrors, other: VisibleErrors, keys: Iterable[tuple[str, str]]
) -> tuple[float | None, list[float] | None]:
    keys = [key for key in keys if key[0] in one.ages]
    groups = [one.ages[case] for case in sorted({case for case, _ in keys})]
    if len(set(groups)) < 2:
        return None, None
    mine, counted, subjects = one.arrange(keys)
    theirs, _, _ = other.arrange(keys)
    return statistics.mean_of_groups(mine - theirs, counted, groups, subjects)


def _add_tests(rows: list[dict], reference: int, pairs: list[dict], name: str) -> None:
    """p of each row against the reference's."""
    for pair in pairs:
        if reference in pair["rows"]:
            (other,) = set(pair["rows"]) - {reference}
            numbers = rows[other][name]
            numbers["p_subjects"] = pair["subjects"]
            numbers |= {key: pair[key] for key in ("p", "p_holm")}
