"""What charts and pictures share: a blank figure, and colours that all readers can tell apart."""

from typing import TYPE_CHECKING

import numpy as np

from fetal_jax.io import slicer_scene

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

# Okabe and Ito's (2008), which colour-blind readers tell apart
BLUE, VERMILION, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#F0E442"
SERIES = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# (truth, prediction); on skin, where both are balls, they differ in lightness too
ON_PAPER = (GREEN, VERMILION)
ON_SCAN = (slicer_scene.TRUTH, slicer_scene.PREDICTED)  # page.css and viewer.js have them too
ON_SKIN = (BLUE, YELLOW)
SKIN = slicer_scene.SKIN
GREY, GRID, SOFT_INK, ERROR_LINE = "#777777", "#cccccc", "#444444", "#222222"


def start_figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple["Figure", np.ndarray]:
    """A blank figure that needs no display, and its axes [rows, columns]; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def take_literally(figure: "Figure") -> None:
    """Names are no formulas: two $ in a label or a case's name would be one to matplotlib.

    The powers that it writes itself along a logarithmic axis are some.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    formulas = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            formatters = axis.get_major_formatter(), axis.get_minor_formatter()
            if any(isinstance(one, LogFormatter) for one in formatters):
                formulas.update(axis.get_ticklabels(which="both"))
    for text in figure.findobj(Text):
        if text not in formulas:
            text.set_parse_math(False)
