"""The chart and the table of `few_cases.sh`: error against training cases.

python study/draw_few.py runs/few
"""

import argparse
from pathlib import Path

import numpy as np

from fetal_jax.io.tables import write_table
from fetal_jax.report.figures import GREY, GRID, SERIES, start_figure
from fetal_jax.runs.point_table import read_point_rows
from fetal_jax.runs.results import read_results
from fetal_jax.statistics import bootstrap_interval

COUNTS, SEEDS = (2, 4, 8, 16), (0, 1, 2)
STARTS = {"nothing": "from nothing", "run": "from a run on other data"}
TITLES = {
    "phantom": "phantom: second site, other landmarks",
    "mouse": "mouse heads: the other half of the landmarks",
}


def read_errors(runs: list[Path]) -> tuple[np.ndarray, list[str]]:
    """Mean error in mm of each test case, over its landmarks and over runs; and subjects."""
    per_run = []
    for run in runs:
        rows = read_point_rows(run / "results.csv")
        counted = np.isfinite(rows.error_mm) & rows.visible
        names = np.unique(rows.case[counted])
        per_run.append([rows.error_mm[counted & (rows.case == name)].mean() for name in names])
    subjects = [str(rows.subject[rows.case == name][0]) for name in names]
    return np.mean(per_run, axis=0), subjects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    root = parser.parse_args().runs
    kinds = [kind for kind in TITLES if (root / kind / f"run-{COUNTS[-1]}-{SEEDS[-1]}").exists()]
    figure, axes = start_figure(4.6 * len(kinds), 3.8, 1, len(kinds))
    table = []
    for kind, ax in zip(kinds, axes[0], strict=True):
        for color, (start, title) in zip(SERIES, STARTS.items(), strict=False):
            means, lows, highs = [], [], []
            for count in COUNTS:
                runs = [root / kind / f"{start}-{count}-{seed}" for seed in SEEDS]
                errors, subjects = read_errors(runs)
                low, high = bootstrap_interval(
                    errors[:, None], np.ones((len(errors), 1), bool), subjects
                )
                means.append(errors.mean())
                lows.append(low)
                highs.append(high)
                each = [f"{read_results(run)['d_mean_mm']:.2f}" for run in runs]
                table.append(
                    [kind, start, count, *(f"{v:.2f}" for v in (means[-1], low, high)), *each]
                )
            ax.plot(COUNTS, means, "o-", color=color, label=title)
            ax.fill_between(COUNTS, lows, highs, color=color, alpha=0.2, lw=0)
        guess = read_results(runs[-1])["guess_d_mean_mm"]
        ax.axhline(guess, color=GREY, ls=":", label="the mean position of 16 cases")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(COUNTS, [str(count) for count in COUNTS])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.grid(True, which="both", lw=0.3, color=GRID)
        ax.set_xlabel("training cases")
        ax.set_ylabel("d-mean, mm (three seeds; 95 % over subjects)")
        ax.set_title(TITLES[kind], fontsize=9)
        ax.legend(fontsize=8)
    figure.savefig(root / "few_cases.png", dpi=150)
    heads = ["data", "start", "cases", "d_mean_mm", "low", "high", *(f"seed{s}" for s in SEEDS)]
    write_table(root / "few_cases.csv", heads, table)


if __name__ == "__main__":
    main()
