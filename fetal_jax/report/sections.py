"""What a report says: each part of the page, from the numbers of results.json and results.csv.

A result is the numbers of `summary.summarise_parts`; several stand beside each other as title ->
numbers, the first being the one that counts.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from fetal_jax.report import page
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Cell, Section
from fetal_jax.runs.alignment import KINDS
from fetal_jax.runs.point_table import PointRows

# What a landmark's share of points within the radius means for its use, a convention of ours: the
# low end of its interval, or the share itself, is at least so much.
RELIABLE = 0.8


def render_result(result: dict) -> str:
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
    heads = ["", "cases", "points", "mean error, mm (95 %)", "by argmax", "sd", "median"]
    heads += ["p95", *(f"% within {float(r):g} mm (95 %)" for r in radii)]
    rows = []
    for title, result in results.items():
        whole = result | {"n": result["landmarks"]}
        for name, row in ((title, whole), (f"{title}, completed points", result["completed"])):
            if name != title and not row["n"]:
                continue
            rows.append(
                [
                    name,
                    f"{result['cases']}",
                    f"{row['n']}",
                    page.format_interval(row["d_mean_mm"], row["d_mean_ci_mm"]),
                    page.format_number(row.get("argmax_d_mean_mm")),
                    *(page.format_number(row[k]) for k in ("d_sd_mm", "d_median_mm", "d_p95_mm")),
                    *(_format_rate(row, r) for r in radii),
                ]
            )
    notes = [
        "Intervals: over subjects, of a mean by bootstrap, of a share Wilson's. By argmax: the "
        "mean error of the highest voxel, without a decoder. p95: the 95th percentile. Completed "
        "points cannot be seen in the scan; their truth is what an annotator completed, and they "
        "count in no other figure here."
    ]
    for title, result in results.items():
        if result.get("models"):
            notes.append(
                f"{title}: of each point the mean of the errors of {result['models']} models."
            )
        if result["annotators"]:
            apart = result["annotators"]["apart_mm"]
            notes.append(f"{title}: two annotators are {apart:.2f} mm apart.")
    for title, result in results.items():
        if truth := result["truth"]:
            found = page.format_interval(truth["d_mean_mm"], truth["d_mean_ci_mm"])
            floor = page.format_interval(
                truth["annotation_d_mean_mm"], truth["annotation_d_mean_ci_mm"]
            )
            notes.append(
                f"{title}: from the true points, which a simulation knows, the predictions are "
                f"{found} mm away, the annotations {floor} mm."
            )
    body = page.render_table(heads, rows, caption=escape(" ".join(notes)), anchor="results")
    return Section("results", "Result", body)


def tabulate_stages(stages: Sequence[dict], *, frame_share: float, poses: int = 1) -> Section:
    """What each look of a run that looks twice adds.

    Args:
      stages: of `stages.summarise_stages`.
      frame_share: of the points of the first look, below which there is no frame.
      poses: in which the first network looked.
    """
    heads = ["", "mean error, mm (95 %)", "median", "from the true points", "agree with the frame"]
    rows = [
        [
            row["stage"],
            page.format_interval(row["d_mean_mm"], row["d_mean_ci_mm"]),
            page.format_number(row["d_median_mm"]),
            page.format_number(row["truth_d_mean_mm"]),
            f"{100 * row['agreeing']:.0f} %" if "agreeing" in row else "",
        ]
        for row in stages
    ]
    without = stages[0]["no_frame"]
    caption = (
        "Visible landmarks, all cases. The first network's points give the face's frame, by the "
        "mean shape of the training cases; the second network looks there, in finer voxels, and "
        "its points give the frame of its next look. The mean shape in the first frame is the "
        f"guess that it must beat. Where less than {100 * frame_share:.0f} % of the first "
        "network's points agree there is no frame, and they are the answer: so in "
        f"{without} of the cases."
    )
    if poses > 1:
        caption += (
            f" The first network looked in {poses} poses, and the second one chose among them in "
            "three looks, which are not listed: the frame of the mean shape is that of the third."
        )
    body = page.render_table(heads, rows, caption=escape(caption), anchor="stages-table")
    return Section("stages", "What each look adds", body)


def tabulate_visibility(result: dict, chart: Chart | None) -> Section | None:
    """Which landmarks can be seen, as the program says it, and where the others lie.

    Args:
      result: with `visibility` and `completion` of `summary.summarise_parts`.
      chart: of the chances against what came of them.
    """
    found, completion = result.get("visibility"), result.get("completion")
    if not found:
        return None
    rows = [
        ["AUC, all points", page.format_interval(found["auc"], found["auc_ci"])],
        [
            "AUC within a landmark, mean",
            page.format_interval(found["auc_within"], found["auc_within_ci"]),
        ],
    ]
    if "auc_base" in found:
        rows += [
            ["AUC of each landmark's share in training", page.format_number(found["auc_base"])],
            ["AUC above that, 95 %", _format_range(found["auc_gain_ci"])],
            ["Brier score of that", page.format_number(found["brier_base"], 3)],
        ]
    rows += [
        ["Brier score", page.format_number(found["brier"], 3)],
        ["hidden points called visible", _format_share(found["false_present"])],
        ["visible points called hidden", _format_share(found["false_absent"])],
        ["mean error of points called visible, mm", _format_counted(found["called_present"])],
        ["mean error of points called hidden, mm", _format_counted(found["called_absent"])],
    ]
    caption = (
        f"{found['n']} points, of which {found['hidden']} cannot be seen. AUC: how often a visible "
        "point has a higher chance than a hidden one. With a chance below "
        f"{found['min_visible']:g} a point counts as hidden: a landmark file has it as undefined, "
        "and in its description where it is expected."
    )
    body = page.render_table(["", "value (95 %)"], rows, caption=caption, anchor="visibility-table")
    if chart is not None:
        body += page.render_figure(chart.to_inline(chart.caption), chart.caption)
    if completion:
        body += _tabulate_completion(completion)
    return Section("visibility", "What can be seen", body)


def _tabulate_completion(completion: dict) -> str:
    names = {
        "found": "the network's own guess",
        "mirrored": "mirror image of the other side",
        "shape": "shape of a face, given what can be seen",
    }
    rows = []
    for kind, title in (("hidden", "all"), ("paired", "with a visible partner")):
        some = completion[kind]
        if not some["n"]:
            continue
        for way, name in names.items():
            if way in some:
                value = page.format_interval(some[way]["d_mean_mm"], some[way]["ci"])
                rows.append([f"{name}, {title}", f"{some['n']}", value])
    where = "the true points" if completion["from"] == "true" else "what annotators completed"
    caption = f"Hidden points: three ways to say where they are, from {where}."
    heads = ["", "n", "mean error, mm (95 %)"]
    return page.render_table(heads, rows, caption=caption, anchor="completion-table")


def _format_range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _format_share(share: dict) -> str:
    return page.format_percent_interval(share["share"], share["ci"])


def _format_counted(row: dict) -> str:
    return f"{page.format_number(row['d_mean_mm'])} (n = {row['n']})"


def _format_rate(row: dict, radius: str) -> str:
    """Percent; its head has the sign."""
    # a run of an older version has no intervals of its rates
    share, interval = row["success_rate"][radius], (row.get("success_rate_ci") or {}).get(radius)
    percent = None if share is None else 100 * share
    return page.format_interval(percent, interval and [100 * end for end in interval], digits=0)


def judge_landmark(row: dict) -> tuple[str, str]:
    """(word, class of the cell) of one landmark's entry in per_landmark."""
    if not row["n"]:
        return "not tested", "gap"
    interval = row["within_radius_ci"]  # None with one subject
    if interval is not None and interval[0] >= RELIABLE:
        return "reliable", "good"
    if row["within_radius"] >= RELIABLE:
        return "check it", "fair"
    return "do not rely on it", "poor"


def tabulate_landmarks(result: dict, names: Mapping[str, str], chart: Chart) -> Section:
    """Which landmarks can be trusted, the most accurate first."""
    radius = f"{result['confidence']['radius_mm']:g} mm"
    per = result["per_landmark"]
    rows = []
    for label in sorted(per, key=lambda k: (per[k]["d_mean_mm"] is None, per[k]["d_mean_mm"])):
        row = per[label]
        word, kind = judge_landmark(row)
        rows.append(
            [
                label,
                Cell(names.get(label, ""), kind="words"),
                Cell(word, kind=f"words {kind}"),
                f"{row['n']}",
                page.format_interval(row["d_mean_mm"], row["d_mean_ci_mm"]),
                page.format_number(row["d_median_mm"]),
                page.format_number(row["d_p95_mm"]),
                page.format_percent_interval(row["within_radius"], row["within_radius_ci"]),
                page.format_percent(row["confidence_mean"]),
            ]
        )
    heads = ["landmark", "", "use", "n", "mean error, mm (95 %)", "median", "95th percentile"]
    heads += [f"within {radius} (95 %)", "mean confidence"]
    caption = (
        f"Visible points. Reliable: even the low end of the interval has {100 * RELIABLE:.0f} % of "
        f"the points within {radius}; check it: the share itself has; else do not rely on it. "
        "The interval of a share is Wilson's over subjects: with few no landmark can be called "
        "reliable."
    )
    body = page.render_table(heads, rows, caption=caption, anchor="landmarks-table", sortable=True)
    body += page.render_figure(chart.to_inline(chart.caption), chart.caption)
    return Section("landmarks", "Which landmarks can be trusted", body)


def tabulate_alignment(numbers: Mapping[str, Sequence[dict]], chart: Chart) -> Section:
    """What further turns and shifts cost; numbers: of `alignment.summarise_alignment`."""
    heads = ["motion", "n", "mean error, mm (95 %)", "times that of the scans unmoved (95 %)"]
    heads += ["landmarks outside the grid"]
    rows = [
        [
            f"{kind} by {row[unit]:g}{'°' if unit == 'degrees' else ' mm'}",
            f"{row['n']}",
            page.format_interval(row["d_mean_mm"], row["d_mean_ci_mm"]),
            page.format_interval(row["ratio"], row["ratio_ci"]),
            page.format_percent(row["outside"]),
        ]
        for kind, (unit, _) in KINDS.items()
        for row in numbers[kind]
    ]
    body = page.render_figure(chart.to_inline(chart.caption), chart.caption)
    return Section(
        "alignment", "Turned and shifted", body + page.render_table(heads, rows, anchor="moved")
    )


def render_charts(drawn: Mapping[str, Chart], where: str = "") -> str:
    """Charts beside each other, as HTML; `where` is said to those who cannot see them."""
    figures = [
        page.render_figure(chart.to_inline(f"{where}{chart.caption}"), chart.caption)
        for chart in drawn.values()
    ]
    return f'<div class="pair">{"".join(figures)}</div>'


def group_cases(points: PointRows) -> list[dict]:
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


def tabulate_cases(points: PointRows) -> Section:
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
                page.format_number(case["error_mm"] if known else None),
                Cell(
                    f"{case['worst']} {case['worst_mm']:.2f}" if known else "–",
                    case["worst_mm"] if known else "",
                ),
                page.format_percent(case["confidence"]),
            ]
        )
    heads = ["case", "subject", "site", "weeks", "visible", "mean error, mm", "worst, mm"]
    heads += ["mean confidence"]
    body = page.render_table(heads, rows, anchor="cases-table", sortable=True)
    return Section("all-cases", "All cases", f'<div class="scroll">{body}</div>')


def tabulate_doubts(wrong: Mapping[str, str], points: PointRows) -> Section:
    """What looks wrong with the predictions, where looking pays most first, without their truth.

    Args:
      wrong: case -> what, in words; of `tested_doubts.describe_tested`.
    """
    errors = {case["case"]: case["error_mm"] for case in group_cases(points)}
    caption = (
        "As --mode=predict says it of new scans: what the other landmarks do not explain, and what "
        "the network is not sure of; the truth is not looked at. The scan in which corrections are "
        "expected to save most comes first. Beside it the mean error that it really has."
    )
    if not wrong:
        return Section("doubts", "What looks wrong", page.render_paragraph("Nothing does."))
    rows = [
        [
            case,
            page.format_number(errors[case] if np.isfinite(errors[case]) else None),
            Cell(said, kind="words"),
        ]
        for case, said in wrong.items()
    ]
    heads = ["case", "mean error, mm", "what looks wrong"]
    table = page.render_table(heads, rows, anchor="doubts-table", sortable=True)
    body = f'{page.render_paragraph(caption)}<div class="scroll">{table}</div>'
    others = [error for case, error in errors.items() if case not in wrong and np.isfinite(error)]
    if others:
        body += page.render_paragraph(
            f"Nothing looks wrong with the other {len(others)}; their mean error is "
            f"{np.mean(others):.2f} mm."
        )
    return Section("doubts", "What looks wrong", body)


def tabulate_measurements(result: dict, growth: Chart | None) -> Section | None:
    """The craniofacial measurements: agreement of prediction with truth, and growth charts.

    Args:
      growth: of `captions.draw_growth`.
    """
    summary = result["measurements"]
    if not summary:
        return None
    rows, known = [], any(row.get("exact") for row in summary.values())
    for row in summary.values():
        unit, exact = row["unit"], row.get("exact")
        limits = row["limits"]
        rows.append(
            [
                row["name"],
                Cell(unit, kind="words"),
                f"{row['n']}",
                f"{row['gaps']}",
                page.format_number(row["true_mean"], 1),
                page.format_interval(row["bias"], row.get("bias_ci")),
                page.format_number(row.get("noise_floor")),
                "–" if limits is None else f"{limits[0]:.2f} to {limits[1]:.2f}",
                page.format_interval(row["mean_abs_error"], row["mean_abs_error_ci"]),
            ]
        )
        if known:
            rows[-1] += [
                page.format_number(exact[name]) if exact else "–"  # the page has no more room
                for name in ("bias", "annotated_bias")
            ]
    heads = ["measurement", "", "n", "not measured", "mean", "bias (95 %)", "noise floor"]
    heads += ["limits of agreement", "mean absolute error (95 %)"]
    if known:
        heads += ["from true points", "annotated from true"]
    caption = (
        "Bias: predicted minus annotated. Limits of agreement: bias ± 1.96 sd of the difference, "
        "between children and within one. Not measured: a landmark is absent, or cannot be seen "
        "and was found with low confidence; measurements.csv says which. Noise floor: what a face "
        "without any asymmetry would show with errors as large as those here in random directions, "
        "for an asymmetry is a distance: a smaller one cannot be told from none."
    )
    if known:
        caption += (
            " The last two are biases from where a phantom's points really are, of what was found "
            "and of what was annotated, with intervals in results.json: errors of the annotators "
            "alone may bend an angle between short distances far."
        )
    body = page.render_table(
        heads, rows, caption=caption, anchor="measurements-table", sortable=True
    )
    if growth is not None:
        body += page.render_figure(growth.to_inline(growth.caption), growth.caption)
    return Section("measurements", "Measurements", body)


def render_run(results: dict, config_text: str, files: Sequence[tuple[str, str]]) -> Section:
    """How it was made, and where everything is.

    Args:
      results: of results.json; one of an older version does not say which program it was.
      files: (name, what it holds).
    """
    facts = [
        f"{results['steps']} steps in {results['seconds'] / 60:.1f} minutes on "
        f"{results['device']}, seed {results['seed']}."
    ]
    if start := results.get("started_from"):
        facts.append(f"It began as {escape(start['run'])}, step {start['step']}.")
    if program := format_program(results):
        facts.append(f"{program}.")
    listed = "".join(f"<li>{_name_file(name)} {escape(what)}</li>" for name, what in files)
    body = page.render_paragraph(*facts) + f"<ul>{listed}</ul>"
    body += page.render_folded(config_text, "Config")
    return Section("run", "How it was made", body)


def _name_file(name: str) -> str:
    """Of text to read a link; the page may be sent without what lies beside it."""
    code = f"<code>{escape(name)}</code>"
    return f'<a href="../{escape(name)}">{code}</a>' if name.endswith(".md") else code


def format_program(results: dict) -> str:
    """'fetal_jax 0.1.0, commit 1a2b3c4d5e6f, JAX 0.10.2 …'; '' where results.json has none."""
    program = results.get("program") or {}
    commit, _, changes = (program.get("commit") or "").partition("+")
    named = {
        "fetal_jax": program.get("version"),
        "commit": commit[:12] + ("" if not changes else ", with changes to it"),
        "JAX": program.get("jax"),
        "jaxlib": program.get("jaxlib"),
        "Python": program.get("python"),
    }
    return ", ".join(f"{name} {value}" for name, value in named.items() if value)
