"""The page of observers: how far they agree, where they do not, and the program beside them.

`numbers` is the content of agreement.json, of `runs.agreement.summarise_agreement`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fetal_jax.agreement import NORMAL, TWO_WAY
from fetal_jax.data.dataset import Dataset
from fetal_jax.io.files import write_atomically
from fetal_jax.io.tables import shorten
from fetal_jax.report import captions, page
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Cell, Section
from fetal_jax.runs.agreement import DISTANCES_CSV, MEASUREMENTS_CSV, MeasuredReadings

# What an intraclass correlation is called by the low end of its interval: Koo & Li 2016, J.
# Chiropr. Med. 15:155
WORDS = ((0.9, "excellent", "good"), (0.75, "good", "good"), (0.5, "moderate", "fair"))


def write_report(output: Path, dataset: Dataset, numbers: dict, measured: MeasuredReadings) -> None:
    """OUTPUT/report/index.html, and its charts beside it."""
    drawn = {"landmarks": captions.draw_distances(_name_distances(numbers))}
    if differences := captions.draw_differences(numbers, measured):
        drawn["differences"] = differences
    for name, chart in drawn.items():
        chart.save(output / name)
    document = render_agreement(dataset, numbers, drawn)
    write_atomically(output / "report" / "index.html", document.encode())


def describe_agreement(numbers: dict) -> list[str]:
    """The result in sentences."""
    between, within = numbers["between"], numbers["within"]
    who = (
        f"{len(numbers['annotators'])} observers ({shorten(numbers['annotators'])}), "
        f"{_count_cases(numbers)}"
    )
    said = [f"{who}: no point that two of them set."]
    if between["n"]:
        said = [f"{who}: two of them are {_say(between)} apart, {between['n']} visible points."]
    if within["n"]:
        again = [name for name, row in numbers["observers"].items() if row["repeated"]]
        said.append(
            f"Two readings by one observer ({shorten(again)}) are {_say(within)} apart, "
            f"{within['n']} visible points."
        )
    if numbers["difference"]:
        said += [describe_difference(numbers["difference"]), *numbers["program"]["notes"]]
    return said


def describe_difference(difference: dict) -> str:
    """Whether the program is as near to the observers as they are to each other, in a sentence."""
    if not difference["n"]:
        return "The program and two observers have no visible point in common."
    interval, mean = difference["d_mean_ci_mm"], difference["d_mean_mm"]
    beside = (
        f"{difference['program_mm']:.2f} mm from a single one of them, who are "
        f"{difference['between_mm']:.2f} mm apart on the same {difference['n']} points: difference "
        f"{mean:+.2f} mm"
    )
    if interval is None:
        return f"The program is {beside}, of one subject."
    low, high = interval
    beside += f" (95 % interval {low:+.2f} to {high:+.2f})"
    if high < 0:
        return f"The program is nearer to the observers than they are to each other: {beside}."
    if low > 0:
        return f"The program is farther from the observers than they are from each other: {beside}."
    return (
        "The program is as near to the observers as they are to each other, to within "
        f"{max(-low, high):.2f} mm: {beside}."
    )


def render_agreement(dataset: Dataset, numbers: dict, drawn: Mapping[str, Chart]) -> str:
    """The page; drawn: name -> chart."""
    first, *rest = describe_agreement(numbers)
    lead = f'<p class="lead">{escape(first)}</p>' + page.render_paragraph(*rest)
    names = {landmark.label: landmark.name for landmark in dataset.landmarks}
    sections = [
        _tabulate_distances(numbers),
        _tabulate_landmarks(numbers, names, drawn["landmarks"]),
        _tabulate_farthest(numbers),
        _tabulate_observers(numbers),
        _tabulate_presence(numbers, names),
        *_tabulate_measurements(numbers, drawn.get("differences")),
        _describe_making(dataset, numbers),
    ]
    return page.render_page(f"{dataset.root.name}: agreement of observers", lead, sections, [])


def _name_distances(numbers: dict) -> dict[str, dict]:
    """Whose distance -> its numbers, of those that are known."""
    every = {
        "two observers": numbers["between"],
        "one observer, twice": numbers["within"],
        "the program to one observer": numbers["program"],
    }
    named = {name: row for name, row in every.items() if row and row["n"]}
    return named or {"two observers": numbers["between"]}


def _tabulate_distances(numbers: dict) -> Section:
    rows = []
    shown = _name_distances(numbers)
    if numbers["difference"]:
        shown = shown | {"program's distance minus observers'": numbers["difference"]}
    for name, row in shown.items():
        for title, one in ((name, row), (f"{name}, completed points", row["completed"])):
            if one["n"] or title == name:
                values = [page.format_number(one[f"d_{k}_mm"]) for k in ("sd", "median", "p95")]
                mean = page.format_interval(one["d_mean_mm"], one["d_mean_ci_mm"])
                rows.append([title, f"{one['n']}", mean, *values])
    caption = (
        "A point, that is a landmark of a case, counts once, with the mean over its pairs of "
        "readings. Of an observer who read a case twice the first reading stands beside others. "
        "Intervals are over subjects, for these observers."
    )
    if numbers["difference"]:
        caption += (
            " The difference is of points that the program and two observers set. The program is "
            "compared with each single observer, as they are with each other: to their mean it "
            "would be nearer."
        )
    heads = ["distance between", "points", "mean, mm (95 %)", "sd", "median", "p95"]
    body = page.render_table(heads, rows, caption=escape(caption), anchor="distances")
    return Section("result", "Distances", body)


def _tabulate_landmarks(numbers: dict, names: Mapping[str, str], chart: Chart) -> Section:
    shown = _name_distances(numbers)
    if numbers["difference"]:
        shown = shown | {"program's minus observers'": numbers["difference"]}
    between = numbers["between"]["per_landmark"]
    labels = sorted(between, key=lambda k: -(between[k]["d_mean_mm"] or 0.0))
    rows = []
    for label in labels:
        row = [label, Cell(names[label], kind="words"), f"{between[label]['n']}"]
        for one in shown.values():
            of = one["per_landmark"][label]
            row.append(
                Cell(page.format_interval(of["d_mean_mm"], of["d_mean_ci_mm"]), of["d_mean_mm"])
            )
        rows.append(row)
    heads = ["landmark", "", "n", *(f"{name}, mm (95 %)" for name in shown)]
    body = page.render_table(
        heads,
        rows,
        caption="Visible points; n: cases in which two observers set it. Worst agreement first.",
        anchor="landmarks-table",
        sortable=True,
    )
    body += page.render_figure(chart.to_inline(chart.caption), chart.caption)
    return Section("landmarks", "Each landmark", body)


def _tabulate_farthest(numbers: dict) -> Section:
    rows = [
        [
            row["case"],
            Cell(row["label"], kind="words"),
            Cell(f"{row['observer']} and {row['other']}", kind="words"),
            page.format_number(row["distance_mm"], 1),
        ]
        for row in numbers["farthest"]
    ]
    caption = (
        "The pairs of readings that are farthest apart. Look at these first: a slip, two landmarks "
        "exchanged, or left for right."
    )
    body = page.render_table(
        ["case", "landmark", "observers", "apart, mm"], rows, caption=caption, anchor="farthest"
    )
    return Section("apart", "Farthest apart", body)


def _tabulate_observers(numbers: dict) -> Section:
    rows = []
    program = numbers["program"]
    for name, row in numbers["observers"].items():
        mean = page.format_interval(row["d_mean_mm"], row["d_mean_ci_mm"]) if row["n"] else "–"
        cells = [name, f"{row['cases']}", f"{row['repeated']}", f"{row['n']}", mean]
        cells.append(page.format_number(row.get("d_median_mm")))
        if program is not None:
            cells.append(page.format_number(row["program_mm"]))
        rows.append(cells)
    heads = [
        "observer",
        "cases",
        "read twice",
        "points",
        "distance to the others, mm (95 %)",
        "median",
    ]
    heads += ["the program to this one, mm"] * (program is not None)
    caption = "Visible points. Observers of other cases had other company."
    body = page.render_table(heads, rows, caption=caption, anchor="observers-table")
    return Section("observers", "Each observer", body)


def _tabulate_presence(numbers: dict, names: Mapping[str, str]) -> Section:
    presence, extra = numbers["presence"], numbers["program"] is not None
    columns = ["n", "all", "some", "none"] + ["alone", "missed"] * extra
    total = {key: sum(row[key] for row in presence.values()) for key in columns}
    text = [
        f"Of {total['n']} points of cases that two observers or more read, all of them marked "
        f"{total['all']}, none {total['none']}, and some but not all {total['some']}. A point that "
        "one left out has no distance: it counts here alone."
    ]
    if extra:
        text.append(
            f"The program marked {total['alone']} that no observer did, and left out "
            f"{total['missed']} that all did."
        )
    body = page.render_paragraph(*text)
    shown = {k: row for k, row in presence.items() if row["all"] < row["n"] or row.get("missed")}
    if shown:
        heads = ["landmark", "", "cases", "all marked it", "some", "none"]
        heads += ["program alone", "program did not"] * extra
        rows = [
            [label, Cell(names[label], kind="words"), *(f"{row[key]}" for key in columns)]
            for label, row in shown.items()
        ]
        said = "Landmarks that all observers of a case marked in every case are not listed."
        body += page.render_table(heads, rows, caption=said, anchor="presence", sortable=True)
    return Section("marked", "Who marked what", body)


def _tabulate_measurements(numbers: dict, chart: Chart | None) -> list[Section]:
    """Intraclass correlations, and limits of agreement of each two observers."""
    measured = numbers["measurements"]
    if not measured:
        said = "The landmarks' labels are not those of a face: there is nothing to measure."
        return [Section("measurements", "Measurements", page.render_paragraph(said))]
    rows = []
    for one in measured.values():
        rows.append(
            [one["name"], "two observers", one["unit"], page.format_number(one["mean"], 1)]
            + _format_correlation(one["between"])
        )
        for name, row in one["within"].items():
            rows.append(
                [one["name"], f"{name}, again", one["unit"], page.format_number(one["mean"], 1)]
                + _format_correlation(row)
            )
    rows = [[a, *(Cell(c, kind="words") for c in (b, u)), *rest] for a, b, u, *rest in rows]
    heads = ["measurement", "readings of", "", "mean", "cases", "ICC (95 %)", "", "differ by up to"]
    body = page.render_table(
        heads, rows, caption=escape(_explain_icc(numbers)), anchor="icc", sortable=True
    )
    if chart is not None:
        body += page.render_figure(chart.to_inline(chart.caption), chart.caption)
    sections = [Section("measurements", "Measurements", body)]
    pairs = [
        [
            one["name"],
            Cell(f"{pair['observer']} − {pair['minus']}", kind="words"),
            Cell(one["unit"], kind="words"),
            f"{pair['n']}",
            page.format_interval(pair["bias"], pair["bias_ci"]),
            page.format_interval(pair["limits"][0], pair["low_ci"]),
            page.format_interval(pair["limits"][1], pair["high_ci"]),
        ]
        for one in measured.values()
        for pair in one["pairs"]
    ]
    if pairs:
        heads = ["measurement", "observers", "", "n", "bias (95 %)"]
        heads += ["lower limit (95 %)", "upper limit (95 %)"]
        said = "Limits of agreement: bias ± 1.96 sd of the difference (Bland and Altman)."
        table = page.render_table(heads, pairs, caption=said, anchor="pairs-table", sortable=True)
        table = f'<div class="scroll">{table}</div>'
        sections.append(Section("pairs", "Each two observers", table))
    return sections


def _format_correlation(row: dict | None) -> Sequence[Cell | str]:
    """Cells: cases, ICC, a word for it, by how much two readings differ."""
    if row is None:
        return ["–"] * 4
    low = row["value"] if row["interval"] is None else row["interval"][0]
    word, kind = next(((w, k) for least, w, k in WORDS if low >= least), ("poor", "poor"))
    return [
        f"{row['n']}",
        page.format_interval(row["value"], row["interval"]),
        Cell(word, kind=f"words {kind}"),
        page.format_number(NORMAL * 2**0.5 * row["sd"]),
    ]


def _explain_icc(numbers: dict) -> str:
    if numbers["crossed"]:
        form = (
            f"Two observers: {TWO_WAY}, two-way random, absolute agreement, single readings, of "
            "the cases that all observers measured"
        )
    else:
        form = (
            "Two observers: ICC(1,1), one-way random, single readings, for less than half of the "
            "cases were read by all; of the cases that two or more measured"
        )
    return (
        f"{form} (Shrout and Fleiss). Again: ICC(1,1) of one observer's repeated readings. The "
        "words go by the low end of the interval: excellent from 0.9, good from 0.75, moderate "
        "from 0.5 (Koo and Li). An ICC also depends on how much the children differ. Differ by up "
        "to: in 95 % of the cases two readings of a child do. Visible points only."
    )


def _describe_making(dataset: Dataset, numbers: dict) -> Section:
    files = [
        ("agreement.json", "all numbers of this page"),
        (DISTANCES_CSV, "each pair of readings of each point"),
    ]
    if numbers["measurements"]:
        files.append((MEASUREMENTS_CSV, "each measurement of each reading"))
    listed = "".join(f"<li><code>{f}</code> {what}</li>" for f, what in files)
    assumed = page.render_folded("\n".join(dataset.assumptions), "What the data set leaves open")
    return Section("made", "How it was made", f"<ul>{listed}</ul>{assumed}")


def _count_cases(numbers: dict) -> str:
    cases, subjects = numbers["cases"], numbers["subjects"]
    return f"{cases} cases" + (f" of {subjects} subjects" if subjects != cases else "")


def _say(row: dict) -> str:
    mean, interval = row["d_mean_mm"], row["d_mean_ci_mm"]
    between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{mean:.2f} mm{between}"
