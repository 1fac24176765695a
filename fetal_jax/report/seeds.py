"""Runs that differ in nothing but their seed become one row of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flax.traverse_util import flatten_dict

from fetal_jax import statistics
from fetal_jax.report.compared_runs import SILENT_KEYS, ComparedRun, VisibleErrors
from fetal_jax.runs.learning_curve import average_curves


def pool_seeds(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The rows of a table: each setting once, where its runs have seeds of their own.

    Of each point the mean of the seeds' errors counts. Unfinished runs, and a second run of a
    setting with a seed that is there already, are rows of their own.
    """
    groups: dict[str, list[ComparedRun]] = {}
    for number, run in enumerate(runs):
        key = _name_setting(run)
        seeds = [other.config.get("seed") for other in groups.get(key, ())]
        if run.results is None or run.config.get("seed") in seeds:
            key = f"{key} {number}"
        groups.setdefault(key, []).append(run)
    return [_pool(group) for group in groups.values()]


def _name_setting(run: ComparedRun) -> str:
    values = flatten_dict(run.config, sep=".")
    told = {k: v for k, v in values.items() if k != "seed" and not k.startswith(SILENT_KEYS)}
    return repr((run.title, sorted(told.items())))


def _pool(runs: Sequence[ComparedRun]) -> ComparedRun:
    if len(runs) == 1:
        return runs[0]
    parts = set.intersection(*(set(run.numbers) for run in runs))
    points = {part: _pool_points([run.points[part] for run in runs]) for part in parts}
    return replace(
        runs[0],
        numbers={
            part: _pool_numbers([run.numbers[part] for run in runs], points[part]) for part in parts
        },
        points=points,
        curve=average_curves([run.curve for run in runs]),
        each=tuple(runs),
    )


def _pool_points(every: Sequence[VisibleErrors]) -> VisibleErrors:
    keys = set.intersection(*(set(one.errors_mm) for one in every))
    errors_mm = {key: float(np.mean([one.errors_mm[key] for one in every])) for key in sorted(keys)}
    every_mm = np.concatenate([one.every_mm for one in every])
    return VisibleErrors(errors_mm, every[0].subjects, every_mm, every[0].ages)


def _pool_numbers(every: Sequence[dict], points: VisibleErrors) -> dict:
    """The mean of each number, the ends of intervals too; that of the d-mean is made anew."""
    errors = points.arrange(points.errors_mm)
    return _average(every) | {
        "d_mean_ci_mm": statistics.bootstrap_interval(*errors),
        "seed_sd_mm": float(np.std([numbers["d_mean_mm"] for numbers in every], ddof=1)),
    }


def _average(values: Sequence):
    """Of dicts key by key, of lists place by place; what is no number in all stays the first's."""
    first = values[0]
    if all(isinstance(value, dict) for value in values):
        shared = [key for key in first if all(key in value for value in values)]
        return {key: _average([value[key] for value in values]) for key in shared}
    if all(isinstance(value, list) and len(value) == len(first) for value in values):
        return [_average(each) for each in zip(*values, strict=True)]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return first if all(value == first for value in values) else float(np.mean(values))
    return first
