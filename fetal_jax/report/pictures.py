"""Pictures of cases: slices with landmarks over them, as matplotlib figures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fetal_jax.data.cases import PreparedCases
from fetal_jax.io.files import write_atomically
from fetal_jax.report.cases import ShownCase
from fetal_jax.report.figures import ON_SCAN, SOFT_INK, start_figure, take_literally

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

# array axis that is cut, the axes drawn to the right and up, and what their ends are called
VIEWS = (
    ("sagittal", 0, 1, 2, "P", "A"),
    ("coronal", 1, 0, 2, "L", "R"),
    ("axial", 2, 0, 1, "L", "R"),
)
TRUTH, PREDICTED = ON_SCAN
CLOSE_MM = 25.0  # what is shown to each side of a landmark
FAINT = 0.03  # of a map's peak: less is not drawn


def draw_cases(
    prepared: PreparedCases,
    labels: Sequence[str],
    predicted_vox: np.ndarray | None = None,
) -> "Figure":
    """A row a case: slices through the middle of its landmarks, truth o and prediction +.

    All landmarks are drawn on each slice, in projection, and named in the first.

    Args:
      prepared: N cases.
      labels: L names.
      predicted_vox: [N, L, 3] in grid voxels, or None.
    """
    n = len(prepared)
    figure, axes = start_figure(12, 4.2 * n, n, len(VIEWS))
    for row, case in enumerate(prepared.cases):
        volume = prepared.volumes[row].astype(np.float32)
        there = prepared.present[row]
        points = prepared.points_vox[row]
        middle = points[there].mean(axis=0) if there.any() else (np.array(volume.shape) - 1) / 2
        spacing_mm = prepared.grids[row].spacing_mm
        for column, view in enumerate(VIEWS):
            ax = axes[row, column]
            _draw_slice(ax, volume, view, middle, spacing_mm)
            _, _, right, up, _, _ = view
            mm = points * spacing_mm
            ax.plot(mm[there, right], mm[there, up], "o", mfc="none", mec=TRUTH, ms=7)
            if predicted_vox is not None:
                predicted = predicted_vox[row] * spacing_mm
                for i in np.flatnonzero(there):  # which prediction is whose
                    ends = np.stack([mm[i], predicted[i]])
                    ax.plot(ends[:, right], ends[:, up], "-", color=PREDICTED, lw=0.7)
                ax.plot(predicted[:, right], predicted[:, up], "+", color=PREDICTED, ms=8, mew=1.6)
            if column == 0:
                for label, point in zip(np.array(labels)[there], mm[there], strict=True):
                    _name_point(ax, label, point[right], point[up], TRUTH)
            ax.set_title(f"{case.name}, {view[0]}" if column == 0 else view[0], fontsize=10)
    legend = "o truth" if predicted_vox is None else "o truth    + prediction"
    figure.suptitle(legend, fontsize=9, color=SOFT_INK)
    return figure


def draw_landmark(shown: ShownCase) -> "Figure":
    """Slices through one landmark of a case: truth o, prediction +, and the network's map.

    The slices go through the truth; how far the prediction is off the slice stands above each.
    """
    from matplotlib import colormaps

    figure, axes = start_figure(12, 4.4, 1, len(VIEWS))
    i, spacing_mm = shown.landmark, shown.spacing_mm
    truth, predicted = shown.points_vox[i], shown.predicted_vox[i]
    reach_mm = max(CLOSE_MM, shown.error_mm[i] + 5.0)
    for column, view in enumerate(VIEWS):
        ax = axes[0, column]
        name, cut, right, up, _, _ = view
        extent = _draw_slice(ax, shown.volume, view, truth, spacing_mm)
        map_ = _cut(shown.map, cut, truth)
        coloured = colormaps["inferno"](np.sqrt(map_))
        coloured[..., 3] = np.where(map_ > FAINT, 0.2 + 0.6 * map_, 0.0)
        ax.imshow(coloured, origin="lower", extent=extent, interpolation="bilinear")
        for point, mark, colour in ((truth, "o", TRUTH), (predicted, "+", PREDICTED)):
            at = point * spacing_mm
            style = {"mfc": "none"} if mark == "o" else {}
            ax.plot(at[right], at[up], mark, mec=colour, ms=11, mew=1.8, **style)
        middle = truth * spacing_mm
        ax.set_xlim(middle[right] - reach_mm, middle[right] + reach_mm)
        ax.set_ylim(middle[up] - reach_mm, middle[up] + reach_mm)
        ax.set_facecolor("black")
        off = abs(predicted[cut] - truth[cut]) * spacing_mm
        ax.set_title(f"{name}, prediction {off:.1f} mm off the slice", fontsize=9)
    figure.suptitle(
        f"{shown.title}: {shown.name}, {shown.labels[i]}, error {shown.error_mm[i]:.1f} mm, "
        f"confidence {shown.confidence[i]:.2f}    o truth   + prediction   glow: heatmap",
        fontsize=10,
    )
    return figure


def to_png(figure: "Figure", dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    take_literally(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def to_array(figure: "Figure", dpi: int = 60) -> np.ndarray:
    """The figure as pixels, [H, W, 3] uint8."""
    take_literally(figure)
    figure.set_dpi(dpi)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file."""
    write_atomically(path, to_png(figure))


def _draw_slice(ax, volume, view, point_vox, spacing_mm):
    """The slice through a point, in mm; returns its extent."""
    _, cut, right, up, low, high = view
    sizes = np.array(volume.shape)
    extent = np.array([-0.5, sizes[right] - 0.5, -0.5, sizes[up] - 0.5]) * spacing_mm
    ax.imshow(
        _cut(volume, cut, point_vox),
        cmap="gray",
        vmin=0,
        vmax=1,
        origin="lower",
        extent=extent,
        interpolation="bilinear",
    )
    ax.set_xlabel(f"{low} – {high}, mm", fontsize=8)
    ax.set_ylabel("I – S, mm" if up == 2 else "P – A, mm", fontsize=8)
    ax.tick_params(labelsize=7)
    return extent


def _cut(volume, axis, point_vox):
    at = int(np.clip(round(float(point_vox[axis])), 0, volume.shape[axis] - 1))
    return np.take(volume, at, axis=axis).T.astype(np.float32)  # what is left is (right, up)


def _name_point(ax, label, x, y, colour):
    ax.annotate(label, (x, y), xytext=(5, 3), textcoords="offset points", color=colour, fontsize=7)
