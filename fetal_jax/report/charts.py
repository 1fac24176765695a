"""Charts of results, told apart in grey and by colour-blind readers: matplotlib figures.

Each function returns a figure; `render_chart` draws it for papers and pages. `results` is title ->
numbers, of `summary.summarise_parts`.
"""

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fetal_jax.io.files import write_atomically
from fetal_jax.report.figures import (
    BLUE,
    GREY,
    GRID,
    ON_PAPER,
    SERIES,
    start_figure,
    take_literally,
)
from fetal_jax.runs.alignment import KINDS
from fetal_jax.runs.learning_curve import LearningCurve

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

# after the last colour they begin again, with other strokes
STROKES = ("-", "--", "-.", (0, (1, 1)))
MARKERS = "osD^vPX<>*"
COLUMNS = 3  # of small charts in a row
LEGEND_LETTERS = 90  # in a line; more would not fit the width
WIDTH = 6.6  # inches: letters have one size where charts stand beside each other


def draw_ela(results: Mapping[str, dict]) -> "Figure":
    """Expected local accuracy against the radius.

    With the random guesser's limit 0.75 R, and what a random guesser gets in these volumes.
    """
    figure, ax = _start_chart(WIDTH, 4.4)
    curves = {title: numbers["ela"] for title, numbers in results.items()}
    known = {title: ela for title, ela in curves.items() if ela["overall"]}
    for i, (title, ela) in enumerate(known.items()):
        ax.plot(ela["radii_mm"], ela["overall"], label=title, lw=1.8, **_style(i))
    for ela in list(known.values())[:1]:
        radii = np.array(ela["radii_mm"])
        ax.plot(radii, 0.75 * radii, ":", color=GREY, lw=1.2, label="random: 0.75 R")
        # boxes lie where a detector puts them: the voxels' limit is that of a map
        ax.plot(radii, ela["guess"], "--", color=GREY, lw=1.0, label="random, this volume")
    ax.set_yscale("log")
    ax.set_xlim(left=0)
    ax.set_xlabel("radius R round the true point, mm")
    ax.set_ylabel("expected local accuracy, mm")
    ax.set_title(_count(results), fontsize=9)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(True, which="both", lw=0.3, color=GRID)
    _add_legend(figure)
    return figure


def draw_landmarks(results: Mapping[str, dict], what: str = "mean error") -> "Figure":
    """Mean error of each landmark with its 95 % interval, best first in the first setting.

    Args:
      what: the distances are called along the axis.
    """
    first = next(iter(results.values()))["per_landmark"]
    every = {label for numbers in results.values() for label in numbers["per_landmark"]}
    labels = sorted(every, key=lambda k: (first.get(k) or {}).get("d_mean_mm") or np.inf)
    figure, ax = _start_chart(WIDTH, 0.9 + 0.27 * len(labels))
    step = 0.7 / max(1, len(results))
    for i, (title, numbers) in enumerate(results.items()):
        rows = [numbers["per_landmark"].get(label) for label in labels]
        places = [place + step * (i - (len(results) - 1) / 2) for place in range(len(labels))]
        _draw_intervals(ax, places, rows, i, title)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="x", which="minor", labelsize=6)
    ax.set_xlabel(f"{what}, mm (95 % interval over subjects)")
    ax.grid(True, axis="x", which="both", lw=0.3, color=GRID)
    if len(results) > 1:
        _add_legend(figure)
    return figure


def draw_groups(results: Mapping[str, dict], group: str, axis_label: str) -> "Figure":
    """Mean error of each site ("per_site") or age group ("per_age_group"), with its interval."""
    names = list(dict.fromkeys(name for numbers in results.values() for name in numbers[group]))
    if group == "per_age_group":
        names.sort(key=lambda name: float(re.sub(r"[<>=]|-.*", "", name) or 0) - (name[0] == "<"))
    figure, ax = _start_chart(WIDTH, 0.9 + 0.35 * len(names) + 0.1 * len(names) * len(results))
    step = 0.6 / max(1, len(results))
    for i, (title, numbers) in enumerate(results.items()):
        rows = [numbers[group].get(name) for name in names]
        places = [place + step * (i - (len(results) - 1) / 2) for place in range(len(names))]
        _draw_intervals(ax, places, rows, i, title)
    counts = [
        max((f[group].get(name) or {}).get("n", 0) for f in results.values()) for name in names
    ]
    ax.set_yticks(
        range(len(names)), [f"{name}\nn = {n}" for name, n in zip(names, counts, strict=True)]
    )
    ax.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    ax.set_xlim(left=0)
    ax.set_ylabel(axis_label)
    ax.set_xlabel("mean error, mm (95 % interval over subjects; n visible points)")
    ax.grid(True, axis="x", lw=0.3, color=GRID)
    if len(results) > 1:
        _add_legend(figure)
    return figure


def draw_success(
    errors_mm: Mapping[str, np.ndarray], points: Mapping[str, int], radii_mm: Sequence[float]
) -> "Figure":
    """Share of the visible points within a distance of the truth.

    Args:
      errors_mm: title -> errors [n], of several models one after another.
      points: title -> number of points, each of which has an error of every model.
      radii_mm: where lines stand.
    """
    figure, ax = _start_chart(WIDTH, 4.4)
    end = 2.5 * max(radii_mm)
    for i, (title, errors) in enumerate(errors_mm.items()):
        ordered = np.sort(errors)
        share = 100 * np.arange(len(ordered) + 1) / max(1, len(ordered))
        steps = np.concatenate([[0.0], ordered])
        label = f"{title} (n = {points[title]})"
        ax.step([*steps, 1e9], [*share, share[-1]], where="post", label=label, lw=1.8, **_style(i))
    for radius in radii_mm:
        ax.axvline(radius, color=GREY, lw=0.8, ls=":")
    ax.set_xlim(0, end)
    ax.set_ylim(0, 101)
    ax.set_xlabel("distance to the truth, mm")
    ax.set_ylabel("visible points within it, %")
    ax.grid(True, lw=0.3, color=GRID)
    _add_legend(figure)
    return figure


def draw_ages(age_weeks: np.ndarray, error_mm: np.ndarray, sites: Sequence[str]) -> "Figure":
    """Mean error of each case [N] against gestational age, the sites apart."""
    figure, ax = _start_chart(WIDTH, 4.0)
    for i, site in enumerate(sorted(set(sites))):
        chosen = (np.asarray(sites) == site) & np.isfinite(age_weeks) & np.isfinite(error_mm)
        marker, colour = MARKERS[i % len(MARKERS)], _style(i)["color"]
        label = f"{site or 'all'} (n = {int(chosen.sum())} scans)"
        ax.plot(
            age_weeks[chosen], error_mm[chosen], marker, mfc="none", mec=colour, ms=5, label=label
        )
    ax.set_ylim(bottom=0)
    ax.set_xlabel("gestational age, weeks")
    ax.set_ylabel("mean error of a scan, mm")
    ax.grid(True, lw=0.3, color=GRID)
    ax.legend(fontsize=7.5, frameon=False)
    return figure


def draw_calibration(bins: Mapping[str, Sequence[dict]], *, promised: str, came: str) -> "Figure":
    """The share of points of which something came true against the chance that was given.

    Args:
      bins: which points -> dicts of confidence (mean), share, ci [low, high] and n.
      promised, came: what the two axes are called.
    """
    figure, ax = _start_chart(WIDTH, 4.4)
    ax.plot([0, 100], [0, 100], ":", color=GREY, lw=1.2, label="as promised")
    for i, (title, some) in enumerate(bins.items()):
        x = [100 * b["confidence"] for b in some]
        y = [100 * b["share"] for b in some]
        low = [100 * (b["share"] - b["ci"][0]) for b in some]
        high = [100 * (b["ci"][1] - b["share"]) for b in some]
        spread = np.maximum([low, high], 0)
        counts = sorted({b["n"] for b in some})
        each = "–".join(map(str, counts[:: max(1, len(counts) - 1)]))
        look = dict(fmt=f"{MARKERS[i]}-", color=SERIES[i], ms=5, lw=1.2)
        ax.errorbar(x, y, yerr=spread, label=f"{title} (95 %), {each} points each", **look)
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 101)
    ax.set_xlabel(promised)
    ax.set_ylabel(came)
    ax.grid(True, lw=0.3, color=GRID)
    ax.legend(fontsize=7.5, frameon=False, loc="upper left")
    return figure


def draw_coverage(regions: Mapping[str, dict]) -> "Figure":
    """The share of each landmark's points within their radius, beside the share that is asked for.

    Args:
      regions: title -> numbers of `region.summarise_region`, with points; the first one's landmarks
        stand in their order.
    """
    first = next(iter(regions.values()))
    labels = list(first["per_landmark"])
    figure, ax = _start_chart(WIDTH, 0.9 + 0.27 * len(labels))
    asked = 100 * first["share"]
    ax.axvline(asked, color=GREY, lw=1.2, ls=":", label=f"asked for: {asked:g} %")
    step = 0.7 / len(regions)
    for i, (title, region) in enumerate(regions.items()):
        rows = [
            {
                "n": row["n"],
                "d_mean_mm": row["n"] and 100 * row["within"],
                "d_mean_ci_mm": row["within_ci"] and [100 * end for end in row["within_ci"]],
            }
            for row in map(region["per_landmark"].get, labels)
        ]
        places = [place + step * (i - (len(regions) - 1) / 2) for place in range(len(labels))]
        _draw_intervals(ax, places, rows, i, title)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlim(right=101)
    ax.set_xlabel("points within their radius, % (95 % interval over subjects)")
    ax.grid(True, axis="x", lw=0.3, color=GRID)
    _add_legend(figure)
    return figure


def draw_alignment(numbers: Mapping[str, Sequence[dict]]) -> "Figure":
    """Mean error against the angle and the shift, each with its 95 % interval.

    Args:
      numbers: of `runs.alignment.summarise_alignment`.
    """
    figure, axes = start_figure(WIDTH, 3.2, 1, len(numbers))
    for ax, (kind, rows) in zip(axes[0], numbers.items(), strict=True):
        unit, _ = KINDS[kind]
        x = [row[unit] for row in rows]
        bands = np.array([row["d_mean_ci_mm"] or [row["d_mean_mm"]] * 2 for row in rows])
        ax.fill_between(x, bands[:, 0], bands[:, 1], color=BLUE, alpha=0.2, lw=0)
        ax.plot(x, [row["d_mean_mm"] for row in rows], "o-", color=BLUE, ms=4, lw=1.4)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(f"{kind} by, {unit}")
        ax.grid(True, lw=0.3, color=GRID)
    axes[0, 0].set_ylabel("mean error, mm (95 %)")
    return figure


def draw_curves(curves: Mapping[str, LearningCurve]) -> "Figure":
    """The validation error against the steps of each setting."""
    figure, ax = _start_chart(WIDTH, 4.4)
    for i, (title, curve) in enumerate(curves.items()):
        ax.plot(curve.steps, curve.d_mean_mm, label=title, lw=1.4, **_style(i))
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="minor", labelsize=6)
    ax.set_xlim(left=0)
    ax.set_xlabel("steps")
    ax.set_ylabel("mean error on validation cases, mm")
    ax.grid(True, which="both", lw=0.3, color=GRID)
    _add_legend(figure)
    return figure


def draw_growth(
    age_weeks: np.ndarray,
    panels: Sequence[tuple[str, str, np.ndarray, np.ndarray, Callable | None]],
) -> "Figure":
    """Each measurement against gestational age: truth o, prediction +, the published curve.

    Args:
      age_weeks: [N].
      panels: (title, unit, truth [N], prediction [N], curve of an age in weeks or None); NaN where
        there is no number.
    """
    rows = -(-len(panels) // COLUMNS)
    figure, axes = start_figure(10.0, 2.5 * rows + 0.4, rows, COLUMNS)
    axes = np.ravel(axes)
    truth_colour, predicted_colour = ON_PAPER
    known = age_weeks[np.isfinite(age_weeks)]
    ages = np.linspace(known.min(), known.max(), 60) if known.size else np.array([])
    for ax, (title, unit, truth, predicted, curve) in zip(axes, panels, strict=False):
        ax.plot(age_weeks, truth, "o", mfc="none", mec=truth_colour, ms=4, mew=0.8)
        ax.plot(age_weeks, predicted, "+", color=predicted_colour, ms=5, mew=0.9)
        if curve is not None:
            ax.plot(ages, curve(ages), "-", color=BLUE, lw=1.4)
        n = int((np.isfinite(truth) & np.isfinite(predicted)).sum())
        ax.set_title(f"{title} (n = {n})", fontsize=8)
        ax.set_ylabel(unit, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(True, lw=0.3, color=GRID)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(panels) - COLUMNS) : len(panels)]:
        ax.set_xlabel("gestational age, weeks", fontsize=8)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", mfc="none", mec=truth_colour, label="truth"),
        Line2D([], [], marker="+", ls="", color=predicted_colour, label="prediction"),
        Line2D([], [], color=BLUE, label="published curve"),
    ]
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside upper center", ncols=3)
    return figure


def draw_differences(
    panels: Sequence[tuple[str, str, np.ndarray, np.ndarray, float | None]],
) -> "Figure":
    """Bland and Altman's plots: the difference of two observers against their mean.

    Args:
      panels: (title, unit, pairs of values of two observers [n, 2], those of the program and an
        observer [m, 2], where the limits stand either way of 0, or None).
    """
    rows = -(-len(panels) // COLUMNS)
    figure, axes = start_figure(10.0, 2.5 * rows + 0.4, rows, COLUMNS)
    axes = np.ravel(axes)
    for ax, (title, unit, observers, program, limit) in zip(axes, panels, strict=False):
        ax.axhline(0.0, color=GREY, lw=0.8)
        for end in (-limit, limit) if limit is not None else ():
            ax.axhline(end, color=GREY, lw=1.0, ls="--")
        for pairs, mark, colour in ((observers, "o", BLUE), (program, "+", ON_PAPER[1])):
            x, y = pairs.mean(axis=1), pairs[:, 0] - pairs[:, 1]
            ax.plot(x, y, mark, mfc="none", color=colour, ms=4, mew=0.8)
        ax.set_title(f"{title} (n = {len(observers)})", fontsize=8)
        ax.set_ylabel(unit, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(True, lw=0.3, color=GRID)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(panels) - COLUMNS) : len(panels)]:
        ax.set_xlabel("mean of the two", fontsize=8)
    return figure


class Chart(NamedTuple):
    """A figure, drawn: PNG and SVG for a paper, whose letters are text; and what it shows."""

    png: bytes
    svg: str
    caption: str

    def save(self, path: Path) -> None:
        """path.png and path.svg."""
        write_atomically(path.with_name(f"{path.name}.png"), self.png)
        write_atomically(path.with_name(f"{path.name}.svg"), self.svg.encode())

    def to_inline(self, alt: str) -> str:
        """The SVG for a page: black becomes the page's ink, white its ground."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = svg.replace("#000000", "currentColor").replace(GRID, "var(--line)")
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = svg.replace("fill: #ffffff", "fill: none")
        # its size is the page's business
        svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
        svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="max-width:\2pt"', svg, count=1)
        return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def render_chart(figure: "Figure", caption: str) -> Chart:
    """Draw a figure once for all its uses."""
    from matplotlib import rc_context

    take_literally(figure)
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160)
    figure.set_layout_engine("none")  # it is laid out; that costs as much as drawing
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fetal_jax"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return Chart(png.getvalue(), svg.getvalue(), caption)


def _draw_intervals(ax, places, rows, i, title) -> None:
    """Means with intervals beside each other; a row is None or has n 0 where nothing is known."""
    known = [(place, row) for place, row in zip(places, rows, strict=True) if row and row["n"]]
    mean = np.array([row["d_mean_mm"] for _, row in known])
    interval = np.array([row["d_mean_ci_mm"] or [row["d_mean_mm"]] * 2 for _, row in known])
    interval = interval.reshape(-1, 2)
    spread = np.maximum([mean - interval[:, 0], interval[:, 1] - mean], 0)  # by rounding
    ax.errorbar(
        mean,
        [place for place, _ in known],
        xerr=spread,
        fmt=MARKERS[i % len(MARKERS)],
        color=_style(i)["color"],
        ms=4,
        lw=1,
        label=title,
    )


def _count(results) -> str:
    first = next(iter(results.values()))
    return f"{first['cases']} cases, {first['landmarks']} visible landmarks"


def _style(i: int) -> dict:
    return {
        "color": SERIES[i % len(SERIES)],
        "linestyle": STROKES[i // len(SERIES) % len(STROKES)],
    }


def _add_legend(figure) -> None:
    """Above the axes, for which the figure grows; long titles are wrapped, and cover no curve."""
    (ax,) = figure.axes
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    labels = [textwrap.fill(label, LEGEND_LETTERS) for label in labels]
    look = dict(fontsize=7.5, frameon=False, loc="outside upper center")
    legend = figure.legend(handles, labels, ncols=2, **look)
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend = figure.legend(handles, labels, **look)
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def _start_chart(width: float, height: float):
    figure, axes = start_figure(width, height)
    return figure, axes[0, 0]
