"""Which charts a report has, each with what stands under it.

`results` is title -> numbers of `summary.summarise_parts`, the first being the one that counts.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fetal_jax.agreement import NORMAL
from fetal_jax.measurements import MEASUREMENTS
from fetal_jax.report import charts, page
from fetal_jax.report.charts import Chart
from fetal_jax.report.sections import group_cases
from fetal_jax.runs.agreement import MeasuredReadings
from fetal_jax.runs.learning_curve import LearningCurve
from fetal_jax.runs.measurement_table import MeasurementRows
from fetal_jax.runs.point_table import PointRows

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


def draw_errors(results: Mapping[str, dict], points: Mapping[str, PointRows]) -> dict[str, Chart]:
    """name -> each chart that the data allow: ELA, success, confidence, age and site.

    Args:
      results, points: of the same titles.
    """
    first, rows = next(iter(results.values())), next(iter(points.values()))
    errors_mm = {title: one.error_mm[one.visible] for title, one in points.items()}
    figures = draw_accuracy(results, errors_mm)
    if first["confidence"]["bins"]:
        bins = {"visible": first["confidence"]["bins"]}
        if completed := first["confidence"]["completed"]["bins"]:
            bins["completed"] = completed
        figures["confidence"] = (
            charts.draw_calibration(
                bins,
                promised="confidence, %",
                came=f"points within {first['confidence']['radius_mm']:g} mm, %",
            ),
            "Confidence against what came of it, in bins of equal size: on the dotted line it is "
            "worth what it says. Completed points cannot be seen. Intervals are over subjects.",
        )
    if np.isfinite(rows.age_weeks).any():
        cases = group_cases(rows)
        columns = [np.array([case[k] for case in cases]) for k in ("age_weeks", "error_mm", "site")]
        figures["ages"] = (
            charts.draw_ages(*columns),
            "Mean error of each scan against gestational age.",
        )
        figures["age-groups"] = draw_age_groups(results)
    if any(set(result["per_site"]) != {"unknown"} for result in results.values()):
        figures["sites"] = (
            charts.draw_groups(results, "per_site", "site"),
            "Mean error at each site with its 95 % interval.",
        )
    return {name: charts.render_chart(*drawn) for name, drawn in figures.items()}


def draw_accuracy(
    results: Mapping[str, dict], errors_mm: Mapping[str, np.ndarray]
) -> dict[str, tuple["Figure", str]]:
    """name -> (figure, caption) of the charts that every result has.

    Args:
      errors_mm: title -> errors [n] of the visible points, of several models one after another.
    """
    points = {title: numbers["landmarks"] for title, numbers in results.items()}
    radii_mm = [float(r) for r in next(iter(results.values()))["success_rate"]]
    return {
        "ela": (
            charts.draw_ela(results),
            "Expected local accuracy: the error if one knew that the point lies within R of the "
            "truth. A curve that is flat from some R on has no higher false peak farther away.",
        ),
        "success": (
            charts.draw_success(errors_mm, points, radii_mm),
            "Share of the visible points within a distance of the truth.",
        ),
    }


def draw_landmarks(results: Mapping[str, dict], note: str) -> Chart:
    """The errors of each landmark; the note ends the caption."""
    caption = f"Mean error of each landmark with its 95 % interval, {note}."
    return charts.render_chart(charts.draw_landmarks(results), caption)


def draw_distances(results: Mapping[str, dict]) -> Chart:
    """The distances of each landmark between observers, within one, to the program.

    Args:
      results: whose distance -> numbers with `per_landmark`, as in agreement.json.
    """
    figure = charts.draw_landmarks(results, "mean distance")
    caption = (
        "Mean distance of two readings of a visible point, of each landmark, with its 95 % "
        "interval; the landmark on which observers agree best is on top."
    )
    return charts.render_chart(figure, caption)


def draw_differences(numbers: dict, measured: MeasuredReadings) -> Chart | None:
    """Bland and Altman's plots of the measurements; None where there is none.

    Args:
      numbers: of agreement.json; measured: what it was made from.
    """
    panels = []
    for i, one in enumerate(measured.chosen):
        first = measured.values[:, :, 0, i].T  # [A, N]
        observers = _join_pairs(itertools.combinations(first, 2))
        found = () if measured.found is None else itertools.product([measured.found[:, i]], first)
        between = numbers["measurements"][one.key]["between"]
        limit = None if between is None else NORMAL * 2**0.5 * between["sd"]
        panels.append((one.name, one.unit, observers, _join_pairs(found), limit))
    if not any(len(observers) for _, _, observers, _, _ in panels):
        return None
    caption = (
        "Difference of two observers against their mean, a ring for each pair and case. Dashed: "
        "where 95 % of the differences of any two observers are expected."
    )
    if measured.found is not None:
        caption += " A cross: the program minus an observer."
    return charts.render_chart(charts.draw_differences(panels), caption)


def _join_pairs(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """[n, 2] of pairs of arrays [N], where both have a value."""
    joined = np.concatenate([np.empty((0, 2)), *(np.stack(pair, axis=1) for pair in pairs)])
    return joined[np.isfinite(joined).all(axis=1)]


def draw_visibility(bins: Sequence[dict]) -> Chart:
    """The chances to be seen against what came of them; bins: of `summarise_visibility`."""
    figure = charts.draw_calibration(
        {"all points": bins}, promised="chance to be seen, %", came="points that can be seen, %"
    )
    caption = (
        "The chance that a landmark can be seen against the share that can, in bins of equal size: "
        "on the dotted line it is worth what it says. Intervals are over subjects."
    )
    return charts.render_chart(figure, caption)


def draw_coverage(regions: Mapping[str, dict]) -> Chart:
    """Whether the radii keep their promise; regions: title -> of `region.summarise_region`."""
    caption = (
        "Share of each landmark's points that lie within their own radius, those that cannot be "
        "seen too. The radii are promised for all landmarks together (dotted), in the mean over "
        "new scans like those that they were fitted to; another site's may be others."
    )
    return charts.render_chart(charts.draw_coverage(regions), caption)


def draw_growth(rows: MeasurementRows) -> Chart | None:
    """The growth charts of measured cases; None where no age is known."""
    shown = [m for m in MEASUREMENTS if m.key in rows.measurement]
    if not shown or not np.isfinite(rows.age_weeks).any():
        return None
    age_weeks = rows.age_weeks[rows.measurement == shown[0].key]  # each case has every measurement
    panels = []
    for one in shown:
        chosen = rows.measurement == one.key
        truth, predicted = rows.truth[chosen], rows.predicted[chosen]
        panels.append((one.name, one.unit, truth, predicted, one.growth))
    sources = "; ".join(dict.fromkeys(m.growth_source for m in shown if m.growth))
    caption = "Each measurement against gestational age."
    caption += f" Published curves: {sources}." if sources else ""
    return charts.render_chart(charts.draw_growth(age_weeks, panels), caption)


def draw_alignment(numbers: Mapping[str, Sequence[dict]]) -> Chart:
    """The error over what alignment leaves; numbers: of `alignment.summarise_alignment`."""
    caption = (
        "Mean error of the visible landmarks when each test scan is turned about the middle of its "
        "face, or shifted, under a grid that stays where it was. The scans are the same at every "
        "point of a curve, each with a random axis of its own; band: 95 % over subjects."
    )
    return charts.render_chart(charts.draw_alignment(numbers), caption)


def draw_age_groups(results: Mapping[str, dict]) -> tuple["Figure", str]:
    """(figure, caption) of the errors in each age group."""
    caption = "Mean error in each age group with its 95 % interval."
    over = [numbers.get("age_mean") for numbers in results.values()]
    if len(over) == 1 and over[0]:
        mean = page.format_interval(over[0]["d_mean_mm"], over[0]["d_mean_ci_mm"])
        caption += f" The mean over the groups, each counted alike: {mean} mm."
    return charts.draw_groups(results, "per_age_group", "weeks"), caption


def draw_curves(curves: Mapping[str, LearningCurve]) -> tuple["Figure", str]:
    """(figure, caption) of the error over the training."""
    caption = (
        "Mean error of the validation cases over the training, the mean over folds and seeds. Of "
        "two looks: of the second network, near the true frames."
    )
    return charts.draw_curves(curves), caption
