"""The chart and the table of `few_cases.sh`: error against training cases.

python -m study.draw_few runs/few
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


def read_errors(runs: list[Path]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors [N, L] in mm, the mean over runs; which of them count [N, L]; N subjects."""
    every = [read_point_rows(run / "results.csv") for run in runs]
    first = every[0]
    cases, labels = (list(dict.fromkeys(column)) for column in (first.case, first.label))
    shape = len(cases), len(labels)
    errors = np.mean([rows.error_mm for rows in every], axis=0).reshape(shape)
    counted = np.isfinite(errors) & first.visible.reshape(shape)
    return errors, counted, list(first.subject.reshape(shape)[:, 0])


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
                errors, counted, subjects = read_errors(runs)
                low, high = bootstrap_interval(errors, counted, subjects)
                means.append(errors[counted].mean())
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
        ax.set_ylabel("d-mean, mm")
        ax.set_title(TITLES[kind], fontsize=9)
        ax.legend(fontsize=8)
    figure.savefig(root / "few_cases.png", dpi=150)
    heads = ["data", "start", "cases", "d_mean_mm", "low", "high", *(f"seed{s}" for s in SEEDS)]
    write_table(root / "few_cases.csv", heads, table)


if __name__ == "__main__":
    main()
