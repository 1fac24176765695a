"""What a report says: each part of the page, from the numbers of results.json and results.csv.

A result is the dict that `evaluate.summarise` gives; several stand beside each other as title ->
dict, the first being the one that counts.
"""

from collections.abc import Mapping
from html import escape

import numpy as np

from fetal_jax.measurements import MEASUREMENTS
from fetal_jax.report import charts, page
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Cell, Section
from fetal_jax.runs.point_table import Points

# What a landmark's share of points within the radius means for its use, a convention of ours: the
# low end of its interval, or the share itself, is at least so much.
RELIABLE = 0.8
ELA_CAPTION = (
    "Expected local accuracy: the error if one knew that the point lies within R of the truth. A "
    "curve that is flat from some R on has no higher false peak farther away."
)


def say_result(result: dict) -> str:
    """The result in a sentence, as HTML."""
    if not result["landmarks"]:
        return f'<p class="lead">{result["cases"]} test cases, no visible landmark.</p>'
    interval = result["d_mean_ci_mm"]
    between = ""
    if interval is not None:
        between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f} mm)"
    return (
        f'<p class="lead"><strong><span id="d_mean_mm">{result["d_mean_mm"]:.2f}</span> mm'
        f"</strong> mean error{between} on {result['landmarks']} visible landmarks of "
        f"{result['cases']} test cases, {result['subjects']} subjects. A guess that ignores the "
        f"image: {result['guess_d_mean_mm']:.2f}&nbsp;mm.</p>"
    )


def tabulate_results(results: Mapping[str, dict]) -> Section:
    """The table of the whole: a row a result, and one for its completed landmarks."""
    radii = list(next(iter(results.values()))["success_rate"])
    heads = ["", "cases", "points", "mean error, mm (95 %)", "sd", "median", "95th percentile"]
    heads += [f"within {float(r):g} mm" for r in radii]
    rows = []
    for title, result in results.items():
        whole = result | {"n": result["landmarks"]}
        for name, found in ((title, whole), (f"{title}, completed points", result["completed"])):
            if name != title and not found["n"]:
                continue
            rows.append(
                [
                    name,
                    f"{result['cases']}",
                    f"{found['n']}",
                    page.with_interval(found["d_mean_mm"], found["d_mean_ci_mm"]),
                    *(page.number(found[k]) for k in ("d_sd_mm", "d_median_mm", "d_p95_mm")),
                    *(page.percent(found["success_rate"][r]) for r in radii),
                ]
            )
    notes = [
        "Intervals: bootstrap over subjects. Completed points cannot be seen in the scan; their "
        "truth is what an annotator completed, and they count in no other figure here."
    ]
    for title, result in results.items():
        if result["annotators"]:
            apart = result["annotators"]["apart_mm"]
            notes.append(f"{title}: two annotators are {apart:.2f} mm apart.")
    body = page.table(heads, rows, caption=escape(" ".join(notes)), anchor="results")
    return Section("results", "Result", body)


def judge_landmark(found: dict) -> tuple[str, str]:
    """(word, class of the cell) of one landmark's entry in per_landmark."""
    if not found["n"]:
        return "not tested", "gap"
    if found["within_radius_ci"][0] >= RELIABLE:
        return "reliable", "good"
    if found["within_radius"] >= RELIABLE:
        return "check it", "fair"
    return "do not rely on it", "poor"


def tabulate_landmarks(result: dict, names: Mapping[str, str], chart: Chart) -> Section:
    """Which landmarks can be trusted, the most accurate first."""
    radius = f"{result['confidence']['radius_mm']:g} mm"
    per = result["per_landmark"]
    rows = []
    for label in sorted(per, key=lambda k: (per[k]["d_mean_mm"] is None, per[k]["d_mean_mm"])):
        found = per[label]
        word, kind = judge_landmark(found)
        rows.append(
            [
                label,
                Cell(names.get(label, ""), kind="words"),
                Cell(word, kind=f"words {kind}"),
                f"{found['n']}",
                page.with_interval(found["d_mean_mm"], found["d_mean_ci_mm"]),
                page.number(found["d_median_mm"]),
                page.number(found["d_p95_mm"]),
                page.percent_with_interval(found["within_radius"], found["within_radius_ci"]),
                page.percent(found["confidence_mean"]),
            ]
        )
    heads = ["landmark", "", "use", "n", "mean error, mm (95 %)", "median", "95th percentile"]
    heads += [f"within {radius} (95 %)", "mean confidence"]
    caption = (
        f"Visible points. Reliable: even the low end of the interval has {100 * RELIABLE:.0f} % of "
        f"the points within {radius}; check it: the share itself has; else do not rely on it. "
        "The interval of a share is Wilson's: with few cases no landmark can be called reliable."
    )
    body = page.table(heads, rows, caption=caption, anchor="landmarks-table", sortable=True)
    body += page.figure(
        chart.to_inline("Mean error of each landmark with its 95 % interval"),
        f"Mean error of each landmark, n = {result['landmarks']} visible points.",
    )
    return Section("landmarks", "Which landmarks can be trusted", body)


def chart_errors(drawn: Mapping[str, Chart]) -> Section:
    """ELA, success, confidence, age and site: the charts of `draw_errors`."""
    captions = {
        "ela": ELA_CAPTION,
        "success": "Share of the visible points within a distance of the truth.",
        "confidence": "Confidence against what came of it, in bins of equal size: on the dotted "
        "line it is worth what it says. Intervals: bootstrap over subjects.",
        "ages": "Mean error of each scan against gestational age.",
        "age-groups": "Mean error in each age group.",
        "sites": "Mean error at each site.",
    }
    body = "".join(
        page.figure(chart.to_inline(captions[name]), captions[name])
        for name, chart in drawn.items()
    )
    return Section("charts", "Errors", f'<div class="pair">{body}</div>')


def draw_errors(results: Mapping[str, dict], points: Mapping[str, Points]) -> dict[str, Chart]:
    """name -> each chart that the data allow."""
    first, rows = next(iter(results.values())), next(iter(points.values()))
    radii = [float(r) for r in first["success_rate"]]
    figures = {"ela": charts.draw_ela(results)}
    figures["success"] = charts.draw_success(
        {title: one.error_mm[one.visible] for title, one in points.items()}, radii
    )
    if first["confidence"]["bins"]:
        figures["confidence"] = charts.draw_confidence(
            first["confidence"]["bins"], first["confidence"]["radius_mm"]
        )
    if np.isfinite(rows.age_weeks).any():
        cases = group_cases(rows)
        figures["ages"] = charts.draw_ages(
            np.array([case["age_weeks"] for case in cases]),
            np.array([case["error_mm"] for case in cases]),
            [case["site"] for case in cases],
        )
        figures["age-groups"] = charts.draw_groups(results, "per_age_group", "weeks")
    if any(set(result["per_site"]) != {"unknown"} for result in results.values()):
        figures["sites"] = charts.draw_groups(results, "per_site", "site")
    return {name: charts.render(figure) for name, figure in figures.items()}


def group_cases(points: Points) -> list[dict]:
    """What the table of cases says of each: the mean error of its visible points, and the worst."""
    cases = []
    for name in dict.fromkeys(points.case):
        one = points.select(points.case == name)
        seen = one.select(one.visible)
        worst = int(np.argmax(seen.error_mm)) if len(seen.case) else None
        cases.append(
            {
                "case": name,
                "subject": one.subject[0],
                "site": one.site[0],
                "fold": one.fold[0],
                "age_weeks": one.age_weeks[0],
                "visible": len(seen.case),
                "error_mm": float(seen.error_mm.mean()) if len(seen.case) else np.nan,
                "worst": "" if worst is None else seen.label[worst],
                "worst_mm": np.nan if worst is None else float(seen.error_mm[worst]),
                "confidence": float(one.confidence.mean()),
            }
        )
    return cases


def tabulate_cases(points: Points) -> Section:
    """A row a case, the worst first; sorted otherwise by its heads."""
    cases = group_cases(points)
    cases.sort(key=lambda case: -np.nan_to_num(case["error_mm"], nan=-1.0))
    rows = []
    for case in cases:
        known = np.isfinite(case["error_mm"])
        age = case["age_weeks"]
        rows.append(
            [
                case["case"],
                Cell(case["subject"], kind="words"),
                Cell(case["site"], kind="words"),
                f"{age:g}" if np.isfinite(age) else "–",
                f"{case['visible']}",
                page.number(case["error_mm"] if known else None),
                Cell(
                    f"{case['worst']} {case['worst_mm']:.2f}" if known else "–",
                    case["worst_mm"] if known else "",
                ),
                page.percent(case["confidence"]),
            ]
        )
    heads = ["case", "subject", "site", "weeks", "visible", "mean error, mm", "worst, mm"]
    heads += ["mean confidence"]
    body = page.table(heads, rows, anchor="cases-table", sortable=True)
    return Section("all-cases", "All cases", f'<div class="scroll">{body}</div>')


def tabulate_measurements(result: dict, growth: Chart | None) -> Section | None:
    """The craniofacial measurements: agreement of prediction with truth, and growth charts.

    Args:
      growth: of `charts.draw_growth`, or None where no age is known.
    """
    summary = result["measurements"]
    if not summary:
        return None
    rows = []
    for found in summary.values():
        unit = found["unit"]
        limits = found["limits"]
        rows.append(
            [
                found["name"],
                Cell(unit, kind="words"),
                f"{found['n']}",
                f"{found['gaps']}",
                page.number(found["true_mean"], 1),
                page.number(found["bias"]),
                "–" if limits is None else f"{limits[0]:.2f} to {limits[1]:.2f}",
                page.with_interval(found["mean_abs_error"], found["mean_abs_error_ci"]),
            ]
        )
    heads = ["measurement", "", "n", "not measured", "mean", "bias", "limits of agreement"]
    heads += ["mean absolute error (95 %)"]
    caption = (
        "Bias: predicted minus true. Limits of agreement: bias ± 1.96 sd of the difference. Not "
        "measured: a landmark is absent, or cannot be seen and was found with low confidence; "
        "measurements.csv says which. An asymmetry is a distance: errors of the points add to it, "
        "so that a symmetric face shows one too."
    )
    body = page.table(heads, rows, caption=caption, anchor="measurements-table", sortable=True)
    if growth is not None:
        sources = "; ".join(
            dict.fromkeys(m.growth_source for m in MEASUREMENTS if m.growth and m.key in summary)
        )
        said = "Each measurement against gestational age."
        body += page.figure(growth.to_inline(said), f"{said} Published curves: {sources}.")
    return Section("measurements", "Measurements", body)


def say_run(results: dict, config_text: str, files: list[tuple[str, str]]) -> Section:
    """How it was made, and where everything is."""
    seconds = results["seconds"]
    facts = [
        f"{results['steps']} steps in {seconds / 60:.1f} minutes on {results['device']}, "
        f"seed {results['seed']}."
    ]
    listed = "".join(f"<li><code>{escape(f)}</code> {escape(what)}</li>" for f, what in files)
    body = page.paragraph(*facts) + f"<ul>{listed}</ul>" + page.preformatted(config_text, "Config")
    return Section("run", "How it was made", body)
