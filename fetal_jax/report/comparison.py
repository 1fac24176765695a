"""Runs side by side: the study's table as Markdown, CSV and a page, and its charts.

`table` is what `compared_runs.compare_runs` makes of `runs`.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fetal_jax.io.files import write_atomically
from fetal_jax.io.tables import write_table
from fetal_jax.report import captions, charts, page, sections
from fetal_jax.report.charts import Chart
from fetal_jax.report.compared_runs import PARTS, ComparedRun
from fetal_jax.report.page import Section
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.learning_curve import PLATEAU_SHARE
from fetal_jax.runs.results import EXTERNAL, TEST
from fetal_jax.runs.summary import ENSEMBLE

FALLING = "↓"
TITLES = {TEST: "Test cases", EXTERNAL: "External site"}


def write_comparison(output: Path, runs: Sequence[ComparedRun], table: dict) -> None:
    """table.md, table.csv, comparison.json, the charts, and report/index.html."""
    write_atomically(output / "table.md", (format_table(table) + "\n").encode())
    _write_csv(output / "table.csv", table)
    run_folder.write_json(output / "comparison.json", table)
    every = draw_charts(runs, table)
    for part, drawn in every.items():
        for name, chart in drawn.items():
            chart.save(output / (name if part == TEST else f"{name}-{part}"))
    document = render_comparison(output.name, table, every, runs)
    write_atomically(output / "report" / "index.html", document.encode())


def format_table(table: dict) -> str:
    """Markdown."""
    text = _format_rows(*arrange_table(table)) + "\n\n" + "\n".join(describe_table(table))
    if table["labels"]:
        text += f"\n\nLike for like, on {', '.join(table['labels'])} only:\n\n"
        text += _format_rows(*arrange_common(table))
    return text


def arrange_table(table: dict) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the study's table."""
    heads, rows = ["setting"], [[_name_setting(row)] for row in table["rows"]]
    for part in PARTS:
        if part == TEST or _has_external(table):
            more, cells = _arrange_part(table, part)
            heads += more
            rows = [row + others for row, others in zip(rows, cells, strict=True)]
    return heads, rows


def _arrange_part(table: dict, part: str) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of a part's columns, without the setting's name."""
    every = [row[part] or {} for row in table["rows"]]
    seeds = any(numbers.get("seed_sd_mm") is not None for numbers in every) and part == TEST
    ages = any(numbers.get("over_ages") for numbers in every) and part == TEST
    within = f"% within {' / '.join(f'{float(r):g}' for r in _find_radii(table))} mm"
    heads = ["d-mean, mm (95 %)" if part == TEST else "external site"]
    heads += ["sd over seeds"] * seeds + ["over ages alike"] * ages
    heads += ["by argmax", "sd", within, "p"]
    heads += [ENSEMBLE] * (part == EXTERNAL)
    lines = []
    for row, numbers in zip(table["rows"], every, strict=True):
        first, *others = _format_part(numbers)
        cells = [first]
        cells += [_format_mm(numbers.get("seed_sd_mm"))] * seeds
        cells += [_format_mean(numbers.get("over_ages"))] * ages
        cells += others
        cells += [_format_mean(numbers.get(ENSEMBLE))] * (part == EXTERNAL)
        if row["missing"]:
            missing = f"not finished: {row['missing']}" if part == TEST else ""
            cells = [missing] + [""] * (len(heads) - 1)
        lines.append(cells)
    return heads, lines


def _arrange_alone(table: dict, part: str) -> tuple[list[str], list[list[str]]]:
    heads, lines = _arrange_part(table, part)
    names = map(_name_setting, table["rows"])
    return ["setting", *heads], [[name, *cells] for name, cells in zip(names, lines, strict=True)]


def arrange_common(table: dict) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the table on the landmarks that all rows have."""
    heads = ["setting", "d-mean, mm (95 %)"]
    heads += ["external site"] if _has_external(table) else []
    lines = []
    for row in table["rows"]:
        if row[TEST]:
            means = [_format_mean((row[part] or {}).get("common")) for part in PARTS]
            lines.append([_name_setting(row), *means][: len(heads)])
    return heads, lines


def describe_table(table: dict) -> list[str]:
    """Sentences under the table: how many, which test."""
    counts = [
        f"{part}: {row[part]['cases']} cases of {row[part]['subjects']} subjects, "
        f"{row[part]['points']} visible points, guess {row[part]['guess_mm']:.2f} mm"
        for part in PARTS
        for row in [next((r for r in table["rows"] if r[part]), None)]
        if row
    ]
    said = ["; ".join(counts) + "."]
    if any((row[EXTERNAL] or {}).get("models") for row in table["rows"]):
        said.append(
            f"External: of each point the mean of the errors of the folds' models; {ENSEMBLE}: the "
            "error of the mean of what they find."
        )
    said.append("By argmax: the mean error of the highest voxel, without a decoder.")
    if table["reference"]:
        said.append(
            f"p: paired permutation test of subject means against {table['reference']}, "
            "on the points that both have, Holm's correction over each two rows within a column."
        )
    if any(len(row["seeds"]) > 1 for row in table["rows"]):
        said.append(
            "Of several seeds, each point's error is their mean. Sd over seeds: of their d-means."
        )
    if any((row[TEST] or {}).get("over_ages") for row in table["rows"]):
        said.append("Over ages alike: the mean of the age groups' means.")
    if any(row["falling"] for row in table["rows"]):
        said.append(
            f"{FALLING}: in the last quarter of the training the error on validation cases fell "
            f"by more than {100 * PLATEAU_SHARE:.0f} %."
        )
    apart = [row[TEST]["annotators_apart_mm"] for row in table["rows"] if row[TEST]]
    if any(apart):
        said.append(f"Two annotators are {apart[0]:.2f} mm apart on the test cases.")
    return said


def draw_charts(runs: Sequence[ComparedRun], table: dict) -> dict[str, dict[str, Chart]]:
    """part -> name -> chart."""
    finished = [run for run in runs if run.results is not None]
    titles = _tell_apart(finished, table)
    drawn = {}
    for part in PARTS:
        shown = {t: run for t, run in zip(titles, finished, strict=True) if part in run.numbers}
        if not shown:
            continue
        results = {title: run.numbers[part] for title, run in shown.items()}
        errors_mm = {title: run.points[part].every_mm for title, run in shown.items()}
        figures = captions.draw_accuracy(results, errors_mm)
        drawn[part] = {name: charts.render_chart(*one) for name, one in figures.items()}
        drawn[part]["landmarks"] = captions.draw_landmarks(
            results, "best first in the first setting"
        )
        if any(set(result["per_age_group"]) != {"unknown"} for result in results.values()):
            drawn[part]["age-groups"] = charts.render_chart(*captions.draw_age_groups(results))
    curves = {t: run.curve for t, run in zip(titles, finished, strict=True) if run.curve}
    if curves and TEST in drawn:
        drawn[TEST]["curves"] = charts.render_chart(*captions.draw_curves(curves))
    return drawn


def render_comparison(
    name: str,
    table: dict,
    every: Mapping[str, Mapping[str, Chart]],
    runs: Sequence[ComparedRun],
) -> str:
    """The page; every: of `draw_charts`."""
    # a table for each part: together they are wider than a page
    result = page.render_table(*_arrange_alone(table, TEST), anchor="results-test")
    if _has_external(table):
        result += page.render_table(*_arrange_alone(table, EXTERNAL), anchor="results-external")
    result += page.render_paragraph(*describe_table(table))
    body = [Section("results", "Result", result)]
    if table["labels"]:
        said = page.render_paragraph(
            f"Some rows have only {', '.join(table['labels'])}. On these, like for like:"
        )
        common = page.render_table(*arrange_common(table), anchor="common")
        body.append(Section("common", "Like for like", said + common))
    for part, drawn in every.items():
        pictures = sections.render_charts(drawn, f"{TITLES[part]}. ")
        body.append(Section(part, TITLES[part], pictures))
    body += _list_pairs(table)
    configs = "".join(
        page.render_folded(json.dumps(one.config, indent=1), f"Config of {one.folder}")
        for one in itertools.chain.from_iterable(run.each or (run,) for run in runs)
    )
    body.append(Section("run", "How it was made", _tabulate_making(runs) + configs))
    return page.render_page(f"{name}: settings compared", _render_best(table), body, [])


def _list_pairs(table: dict) -> list[Section]:
    """Each two rows tested against each other, where there are more than two."""
    rows = []
    for part, pairs in table["pairs"].items():
        for pair in pairs:
            names = [_name_setting(table["rows"][i]) for i in pair["rows"]]
            p = _format_p(pair["p_holm"])
            rows.append([TITLES[part], *names, f"{pair['difference_mm']:+.2f}", p])
    if len(table["rows"]) < 3 or not rows:
        return []
    heads = ["", "setting", "beside", "difference of subject means, mm", "p"]
    said = "Positive: the first has the larger error. p: Holm's correction over all of a part."
    return [Section("pairs", "Each two rows", page.render_table(heads, rows, caption=said))]


def _tabulate_making(runs: Sequence[ComparedRun]) -> str:
    """How long each run took, on what, and which program made it."""
    rows = []
    for run in itertools.chain.from_iterable(row.each or (row,) for row in runs):
        cells = ["not finished", "", "", "", ""]
        if run.results:
            cells = [
                f"{run.results['steps']}",
                f"{run.results['seconds'] / 60:.1f}",
                run.results["device"],
                f"{run.results['seed']}",
                sections.format_program(run.results),
            ]
        rows.append([str(run.folder), *cells])
    return page.render_table(["run", "steps", "minutes", "device", "seed", "program"], rows)


def _render_best(table: dict) -> str:
    """The row of least error in a sentence, and how it stands to the reference."""
    rows = [row for row in table["rows"] if row[TEST]]
    if not rows:
        return '<p class="lead">No run is finished.</p>'
    best = min(rows, key=lambda row: row[TEST]["d_mean_mm"])
    left = sum(bool(row["missing"]) for row in table["rows"])
    unfinished = f" {left} of {len(table['rows'])} rows are not finished." if left else ""
    return (
        f'<p class="lead">Least error: <strong>{best[TEST]["d_mean_mm"]:.2f} mm</strong>, '
        f"{escape(_name_setting(best))}, of {len(rows)} settings.{unfinished}</p>"
    )


def _format_rows(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _find_radii(table: dict) -> list[str]:
    """Radii of the success rates, as results.json names them."""
    return next((list(r[TEST]["success_rate"]) for r in table["rows"] if r[TEST]), [])


def _has_external(table: dict) -> bool:
    return any(row[EXTERNAL] for row in table["rows"])


def _name_setting(row: dict) -> str:
    seeds = f"{len(row['seeds'])} seeds" if len(row["seeds"]) > 1 else ""
    told = "; ".join(filter(None, (row["setting"], _list_differences(row["differs"]), seeds)))
    return f"{told} {FALLING}" if row["falling"] else told


def _list_differences(differs: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in differs.items())


def _format_part(numbers: dict | None) -> list[str]:
    if not numbers:
        return ["-"] * 5
    p = numbers.get("p_holm")
    return [
        _format_mean(numbers),
        *(_format_mm(numbers[k]) for k in ("argmax_d_mean_mm", "sd_mm")),
        " / ".join(f"{100 * share:.0f}" for share in numbers["success_rate"].values()),
        "" if p is None else _format_p(p),
    ]


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _format_mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _format_mean(numbers: dict | None) -> str:
    return page.format_interval(numbers["d_mean_mm"], numbers["ci_mm"]) if numbers else "-"


def _write_csv(path: Path, table: dict) -> None:
    radii = _find_radii(table)
    plain = ["cases", "subjects", "points", "d_mean_mm", "seed_sd_mm", "argmax_d_mean_mm"]
    plain += ["sd_mm", "median_mm", "p", "p_holm"]
    names = [*plain, "ci_low_mm", "ci_high_mm", *(f"within_{r}_mm" for r in radii)]
    names += [f"{k}_d_mean_mm" for k in (ENSEMBLE, "common", "over_ages")]
    columns = ["folder", "setting", "differs", "missing", "seeds", "falling"]
    columns += [f"{part}_{name}" for part in PARTS for name in names]
    lines = []
    for row in table["rows"]:
        line = [row["folder"], row["setting"]]
        line += [" ".join(f"{k}={v}" for k, v in row["differs"].items()), row["missing"]]
        line += [" ".join(map(str, row["seeds"])), row["falling"]]
        for part in PARTS:
            numbers = row[part] or {}
            line += [numbers.get(name) for name in plain]
            line += numbers.get("ci_mm") or [None, None]
            line += [numbers.get("success_rate", {}).get(r) for r in radii]
            line += [
                (numbers.get(k) or {}).get("d_mean_mm") for k in (ENSEMBLE, "common", "over_ages")
            ]
        lines.append(["" if value is None else value for value in line])
    write_table(path, columns, lines)


def _tell_apart(runs: Sequence[ComparedRun], table: dict) -> list[str]:
    """A title for each run, with what differs where two would have the same."""
    differs = {row["folder"]: row["differs"] for row in table["rows"]}
    titles = [run.title for run in runs]
    return [
        title
        if titles.count(title) == 1 or not differs[str(run.folder)]
        else f"{title}, {_list_differences(differs[str(run.folder)])}"
        for title, run in zip(titles, runs, strict=True)
    ]
