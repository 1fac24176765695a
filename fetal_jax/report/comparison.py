"""Runs side by side: the study's table as Markdown, CSV and a page, and its charts.

`table` is what `compare.compare_runs` gives, `runs` are its `compare.Run`s.
"""

import json
from html import escape
from pathlib import Path

import numpy as np

from fetal_jax.io.files import write_atomically
from fetal_jax.io.tables import write_table
from fetal_jax.report import charts, page, sections
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Section
from fetal_jax.runs import folder as run_folder

PARTS = ("test", "external")
TITLES = {"test": "Test cases", "external": "External site"}


def write_comparison(output: Path, runs, table: dict) -> None:
    """table.md, table.csv, comparison.json, the charts, and report/index.html."""
    write_atomically(output / "table.md", (format_table(table) + "\n").encode())
    _write_csv(output / "table.csv", table)
    run_folder.write_json(output / "comparison.json", table)
    every = draw_charts(runs, table)
    for part, drawn in every.items():
        for name, chart in drawn.items():
            chart.save(output / (name if part == "test" else f"{name}-{part}"))
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
    rows = table["rows"]
    within = f"% within {' / '.join(f'{float(r):g}' for r in _find_radii(table))} mm"
    external = _has_external(table)
    heads = ["setting", "ω", "d-mean, mm (95 %)", "sd", within, "p"]
    if external:
        heads += ["external site", "sd", within, "p", "ensemble"]
    lines = []
    for row in rows:
        cells = _name_setting(row)
        if row["missing"]:
            cells.append(f"not finished: {row['missing']}")
        else:
            cells += _show_part(row["test"])
            if external:
                cells += _show_part(row["external"])
                cells.append(_show_mean((row["external"] or {}).get("ensemble")))
        lines.append(cells + [""] * (len(heads) - len(cells)))
    return heads, lines


def arrange_common(table: dict) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the table on the landmarks that all rows have."""
    heads = ["setting", "ω", "d-mean, mm (95 %)"]
    heads += ["external site"] if _has_external(table) else []
    lines = []
    for row in table["rows"]:
        if row["test"]:
            cells = _name_setting(row)
            cells += [_show_mean((row[p] or {}).get("common")) for p in PARTS]
            lines.append(cells[: len(heads)])
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
    if table["reference"]:
        said.append(
            f"p: paired permutation test of subject means against {table['reference']}, "
            "on the points that both have, Holm's correction within a column."
        )
    apart = [row["test"]["annotators_apart_mm"] for row in table["rows"] if row["test"]]
    if any(apart):
        said.append(f"Two annotators are {apart[0]:.2f} mm apart on the test cases.")
    return said


def draw_charts(runs, table: dict) -> dict[str, dict[str, Chart]]:
    """part -> name -> chart."""
    finished = [run for run in runs if run.results is not None]
    titles = _tell_apart(finished, table)
    radii = [float(r) for r in _find_radii(table)]
    drawn = {}
    for part in PARTS:
        shown = [(t, r) for t, r in zip(titles, finished, strict=True) if r.part(part)]
        if not shown:
            continue
        results = {title: run.part(part) for title, run in shown}
        errors_mm = {t: np.array(list(run.points[part].errors_mm.values())) for t, run in shown}
        figures = {
            "ela": charts.draw_ela(results),
            "success": charts.draw_success(errors_mm, radii),
            "landmarks": charts.draw_landmarks(results),
        }
        if any(set(result["per_age_group"]) != {"unknown"} for result in results.values()):
            figures["age-groups"] = charts.draw_groups(results, "per_age_group", "weeks")
        drawn[part] = {name: charts.render(figure) for name, figure in figures.items()}
    return drawn


def render_comparison(name: str, table: dict, every: dict[str, dict[str, Chart]], runs) -> str:
    """The page."""
    heads, rows = arrange_table(table)
    caption = escape(" ".join(describe_table(table)))
    body = [
        Section("results", "Result", page.table(heads, rows, caption=caption, anchor="results"))
    ]
    if table["labels"]:
        said = page.paragraph(
            f"Some rows have only {', '.join(table['labels'])}. On these, like for like:"
        )
        common = page.table(*arrange_common(table), anchor="common")
        body.append(Section("common", "Like for like", said + common))
    captions = {
        "ela": sections.ELA_CAPTION,
        "success": "Share of the visible points within a distance of the truth.",
        "landmarks": "Mean error of each landmark with its 95 % interval, best first in the first "
        "setting.",
        "age-groups": "Mean error in each age group with its 95 % interval.",
    }
    for part, drawn in every.items():
        pictures = "".join(
            page.figure(chart.to_inline(f"{TITLES[part]}. {captions[name]}"), captions[name])
            for name, chart in drawn.items()
        )
        body.append(Section(part, TITLES[part], f'<div class="pair">{pictures}</div>'))
    configs = "".join(
        page.preformatted(json.dumps(run.config, indent=1), f"Config of {run.folder}")
        for run in runs
    )
    times = page.table(
        ["run", "steps", "minutes", "device", "seed"],
        [
            [
                str(run.folder),
                *(
                    [
                        f"{run.results['steps']}",
                        f"{run.results['seconds'] / 60:.1f}",
                        run.results["device"],
                        f"{run.results['seed']}",
                    ]
                    if run.results
                    else ["not finished", "", "", ""]
                ),
            ]
            for run in runs
        ],
    )
    body.append(Section("run", "How it was made", times + configs))
    return page.render_page(f"{name}: settings compared", _say_best(table), body, [])


def _say_best(table: dict) -> str:
    """The row of least error in a sentence, and how it stands to the reference."""
    rows = [row for row in table["rows"] if row["test"]]
    if not rows:
        return '<p class="lead">No run is finished.</p>'
    best = min(rows, key=lambda row: row["test"]["d_mean_mm"])
    name = escape(", ω ".join(_name_setting(best)).removesuffix(", ω -"))
    left = sum(bool(row["missing"]) for row in table["rows"])
    unfinished = f" {left} of {len(table['rows'])} rows are not finished." if left else ""
    return (
        f'<p class="lead">Least error: <strong>{best["test"]["d_mean_mm"]:.2f} mm</strong>, '
        f"{name}, of {len(rows)} settings.{unfinished}</p>"
    )


def _format_rows(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _find_radii(table: dict) -> list[str]:
    """Radii of the success rates, as results.json names them."""
    return next((list(r["test"]["success_rate"]) for r in table["rows"] if r["test"]), [])


def _has_external(table: dict) -> bool:
    return any(row["external"] for row in table["rows"])


def _name_setting(row: dict) -> list[str]:
    differs = ", ".join(f"{k} {v}" for k, v in row["differs"].items())
    return [
        row["setting"] + (f"; {differs}" if differs else ""),
        "-" if row["omega"] is None else f"{row['omega']:g}",
    ]


def _show_part(found: dict | None) -> list[str]:
    if not found:
        return ["-"] * 4
    p = found.get("p_holm")
    return [
        _show_mean(found),
        "-" if found["sd_mm"] is None else f"{found['sd_mm']:.2f}",
        " / ".join(f"{100 * share:.0f}" for share in found["success_rate"].values()),
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
    ]


def _show_mean(found: dict | None) -> str:
    return page.with_interval(found["d_mean_mm"], found["ci_mm"]) if found else "-"


def _write_csv(path: Path, table: dict) -> None:
    radii = _find_radii(table)
    plain = "cases,subjects,points,d_mean_mm,sd_mm,median_mm,p,p_holm".split(",")
    names = [*plain, "ci_low_mm", "ci_high_mm", *(f"within_{r}_mm" for r in radii)]
    names += ["ensemble_d_mean_mm", "common_d_mean_mm"]
    columns = ["folder", "setting", "omega", "differs", "missing"]
    columns += [f"{part}_{name}" for part in PARTS for name in names]
    lines = []
    for row in table["rows"]:
        line = [row["folder"], row["setting"], row["omega"]]
        line += [" ".join(f"{k}={v}" for k, v in row["differs"].items()), row["missing"]]
        for part in PARTS:
            found = row[part] or {}
            line += [found.get(name) for name in plain]
            line += found.get("ci_mm") or [None, None]
            line += [found.get("success_rate", {}).get(r) for r in radii]
            line += [(found.get(k) or {}).get("d_mean_mm") for k in ("ensemble", "common")]
        lines.append(["" if value is None else value for value in line])
    write_table(path, columns, lines)


def _tell_apart(runs, table: dict) -> list[str]:
    """A title for each run, with what differs where two would have the same."""
    differs = {row["folder"]: row["differs"] for row in table["rows"]}
    titles = [run.title for run in runs]
    return [
        title
        if titles.count(title) == 1
        else ", ".join([title, *(f"{k} {v}" for k, v in differs[str(run.folder)].items())])
        for title, run in zip(titles, runs, strict=True)
    ]
