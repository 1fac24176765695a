"""Charts of results: each as PNG and SVG, told apart in grey and by colour-blind readers."""

import io
from pathlib import Path

import numpy as np

from fetal_jax.io.files import write_atomically

# Okabe and Ito's colours, then the same with other strokes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STROKES = ("-", "--", "-.", (0, (1, 1)))
MARKERS = "osD^vPX<>*"


def draw_ela(path: Path, results: dict[str, dict]) -> None:
    """Expected local accuracy against the radius, for each title -> `evaluate.summarise`'s dict.

    With the random guesser's limit 0.75 R, and what a random guesser gets in these volumes.
    """
    figure, ax = _start(7.0, 4.6)
    known = {title: found["ela"] for title, found in results.items() if found["ela"]["overall"]}
    for i, (title, ela) in enumerate(known.items()):
        ax.plot(ela["radii_mm"], ela["overall"], label=title, lw=1.8, **_style(i))
    for i, ela in enumerate(known.values()):
        radii = np.array(ela["radii_mm"])
        if i == 0:
            ax.plot(radii, 0.75 * radii, ":", color="#777777", lw=1.2, label="random: 0.75 R")
            # boxes lie where a detector puts them: the voxels' limit is that of a map
            ax.plot(radii, ela["guess"], "--", color="#777777", lw=1.0, label="random, this volume")
    first = next(iter(results.values()))
    ax.set_yscale("log")
    ax.set_xlim(left=0)
    ax.set_xlabel("radius R round the true point, mm")
    ax.set_ylabel("expected local accuracy, mm")
    ax.set_title(f"{first['cases']} cases, {first['landmarks']} visible landmarks", fontsize=9)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(True, which="both", lw=0.3, color="#cccccc")
    ax.legend(fontsize=7.5, frameon=False)
    _save(figure, path)


def draw_landmarks(path: Path, results: dict[str, dict]) -> None:
    """Mean error of each landmark with its 95 % interval, best first in the first setting."""
    first = next(iter(results.values()))["per_landmark"]
    every = {label for found in results.values() for label in found["per_landmark"]}
    labels = sorted(every, key=lambda k: (first.get(k) or {}).get("d_mean_mm") or np.inf)
    figure, ax = _start(7.0, 1.4 + 0.27 * len(labels))
    step = 0.7 / max(1, len(results))
    for i, (title, found) in enumerate(results.items()):
        y, x, low, high = [], [], [], []
        for place, label in enumerate(labels):
            one = found["per_landmark"].get(label)
            if not one or not one["n"]:
                continue
            interval = one["d_mean_ci_mm"] or [one["d_mean_mm"]] * 2
            y.append(place + step * (i - (len(results) - 1) / 2))
            x.append(one["d_mean_mm"])
            low.append(one["d_mean_mm"] - interval[0])
            high.append(interval[1] - one["d_mean_mm"])
        colour = _style(i)["color"]
        spread = np.maximum([low, high], 0)  # a mean outside its interval, by rounding
        ax.errorbar(
            x, y, xerr=spread, fmt=MARKERS[i % len(MARKERS)], color=colour, ms=4, lw=1, label=title
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="x", which="minor", labelsize=6)
    ax.set_xlabel("mean error, mm (95 % interval over subjects)")
    ax.grid(True, axis="x", which="both", lw=0.3, color="#cccccc")
    figure.legend(fontsize=7.5, frameon=False, loc="outside upper center", ncols=2)
    _save(figure, path)


def _style(i: int) -> dict:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": STROKES[i // len(COLOURS) % len(STROKES)],
    }


def _start(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure, path: Path) -> None:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=160)
        write_atomically(path.with_name(f"{path.name}.{kind}"), buffer.getvalue())
