"""The table of a comparison as Markdown, CSV and a page, from rows that are made up."""

import csv
from pathlib import Path

from fetal_jax.report import comparison
from fetal_jax.report.compared_runs import ComparedRun


def describe(d_mean, **more):
    return {
        "cases": 9, "subjects": 8, "points": 90, "d_mean_mm": d_mean, "ci_mm": [1.0, 3.0],
        "seed_sd_mm": None, "over_ages": None, "argmax_d_mean_mm": 2.75,
        "sd_mm": 0.5, "median_mm": 1.5, "models": None,
        "success_rate": {"2.0": 0.5, "4.0": 1.0}, "guess_mm": 6.0,
        "annotators_apart_mm": None, "ensemble": None,
    } | more  # fmt: skip


def make_row(setting, **more):
    return {
        "folder": f"runs/{setting}", "setting": setting, "differs": {},
        "missing": "", "test": None, "external": None, "seeds": [0], "falling": False,
    } | more  # fmt: skip


TABLE = {
    "reference": "EMD, ω 0.5",
    "labels": ["n", "prn"],
    "pairs": {"test": [{"rows": [0, 1], "difference_mm": -1.0, "p": 0.0004, "p_holm": 0.0004}]},
    "rows": [
        make_row(
            "EMD, ω 0.5", test=describe(2.0, common={"d_mean_mm": 1.0, "ci_mm": None}),
            external=describe(2.5, ensemble={"d_mean_mm": 2.25, "ci_mm": [2.0, 2.5]}),
        ),
        make_row(
            "CE", differs={"optim.lr": 0.1}, test=describe(3.0, p=0.0004, p_holm=0.0004, sd_mm=None)
        ),
        make_row("SSE <1>", missing="fold1 of 4 missing"),
    ],
}  # fmt: skip
RUNS = [ComparedRun(Path(f"runs/{name}"), {}, name) for name in ("EMD", "CE", "SSE")]


def test_markdown():
    lines = comparison.format_table(TABLE).splitlines()
    assert lines[0] == (
        "| setting | d-mean, mm (95 %) | by argmax | sd | % within 2 / 4 mm | p "
        "| external site | by argmax | sd | % within 2 / 4 mm | p | ensemble |"
    )
    assert lines[2] == (
        "| EMD, ω 0.5 | 2.00 (1.00–3.00) | 2.75 | 0.50 | 50 / 100 |  "
        "| 2.50 (1.00–3.00) | 2.75 | 0.50 | 50 / 100 |  | 2.25 (2.00–2.50) |"
    )
    assert lines[3] == (
        "| CE; optim.lr 0.1 | 3.00 (1.00–3.00) | 2.75 | - | 50 / 100 | < 0.001 "
        "| - | - | - | - | - | - |"
    )
    text = comparison.format_table(TABLE)
    assert "By argmax: the mean error of the highest voxel" in text and "models" not in text
    assert lines[4].startswith("| SSE <1> | not finished: fold1 of 4 missing |")
    assert "Like for like, on n, prn only:" in lines and "| EMD, ω 0.5 | 1.00 | - |" in lines


def test_csv(tmp_path):
    comparison.write_comparison(tmp_path, RUNS, TABLE)
    with (tmp_path / "table.csv").open(newline="") as file:
        emd, ce, sse = csv.DictReader(file)
    assert emd["setting"] == "EMD, ω 0.5" and "omega" not in emd
    assert emd["test_argmax_d_mean_mm"] == emd["external_argmax_d_mean_mm"] == "2.75"
    assert emd["test_d_mean_mm"] == "2.0" and emd["external_ensemble_d_mean_mm"] == "2.25"
    assert ce["differs"] == "optim.lr=0.1" and ce["test_p"] == "0.0004"
    assert ce["external_d_mean_mm"] == "" and sse["missing"] == "fold1 of 4 missing"
    assert ce["test_within_4.0_mm"] == "1.0" and ce["test_ci_high_mm"] == "3.0"


def test_page():
    text = comparison.render_comparison("table", TABLE, {}, RUNS)
    assert "Least error: <strong>2.00 mm</strong>, EMD, ω 0.5, of 2 settings." in text
    assert "1 of 3 rows are not finished." in text and "SSE &lt;1&gt;" in text
    assert '<tr><th scope="row">runs/CE</th><td>not finished</td>' in text
    assert "Config of runs/EMD" in text and "not finished: fold1 of 4 missing" in text


def test_what_an_external_error_is_of():
    row = make_row("EMD", test=describe(2.0), external=describe(2.5, models=4))
    text = comparison.format_table({"reference": None, "labels": None, "pairs": {}, "rows": [row]})
    assert "of each point the mean of the errors of the folds' models" in text


def test_several_seeds_ages_and_a_row_that_still_falls_have_their_columns():
    over = {"d_mean_mm": 2.5, "ci_mm": [2.0, 3.0]}
    rows = [
        make_row("EMD", test=describe(2.0, seed_sd_mm=0.125, over_ages=over), seeds=[0, 1, 2]),
        make_row("CE", test=describe(3.0), falling=True),
    ]
    text = comparison.format_table(TABLE | {"labels": None, "rows": rows})
    lines = text.splitlines()
    assert lines[0].startswith(
        "| setting | d-mean, mm (95 %) | sd over seeds | over ages alike | by argmax | sd |"
    )
    assert lines[2].startswith("| EMD; 3 seeds | 2.00 (1.00–3.00) | 0.12 | 2.50 (2.00–3.00) | 2.75")
    assert lines[3].startswith("| CE ↓ | 3.00 (1.00–3.00) | - | - | 2.75 |")
    assert "↓: in the last quarter of the training" in text and "Sd over seeds: of their" in text


def test_each_two_rows_are_on_the_page():
    text = comparison.render_comparison("table", TABLE, {}, RUNS)
    assert "Each two rows" in text and "<td>CE; optim.lr 0.1</td><td>-1.00</td>" in text


def test_nothing_is_finished():
    table = {"reference": None, "labels": None, "pairs": {}, "rows": TABLE["rows"][2:]}
    assert "No run is finished." in comparison.render_comparison("table", table, {}, RUNS[2:])
    assert "not finished" in comparison.format_table(table)


def test_two_runs_of_one_title_are_told_apart():
    table = {"reference": None, "labels": None, "pairs": {}, "rows": [make_row("a"), make_row("b")]}
    table["rows"][1]["differs"] = {"optim.lr": 0.5}
    runs = [ComparedRun(Path(f"runs/{name}"), {}, "CE") for name in ("a", "b")]
    assert comparison._tell_apart(runs, table) == ["CE", "CE, optim.lr 0.5"]


def test_which_program_made_each_run():
    made = {"steps": 4, "seconds": 60.0, "device": "cpu", "seed": 0}
    runs = [
        ComparedRun(Path("new"), {}, "CE", results=made | {"program": {"version": "0.1.0"}}),
        ComparedRun(Path("old"), {}, "CE", results=made),
    ]
    text = comparison._tabulate_making(runs)
    assert "<td>4</td><td>1.0</td><td>cpu</td><td>0</td><td>fetal_jax 0.1.0</td>" in text
    assert "<td>4</td><td>1.0</td><td>cpu</td><td>0</td><td></td>" in text
