"""Pictures of cases: slices with landmarks over them, as matplotlib figures."""

import io
from pathlib import Path

import numpy as np

from fetal_jax.data.cases import PreparedCases
from fetal_jax.io.files import write_atomically
from fetal_jax.report.cases import ShownCase

# array axis that is cut, the axes drawn to the right and up, and what their ends are called
VIEWS = (
    ("sagittal", 0, 1, 2, "P", "A"),
    ("coronal", 1, 0, 2, "L", "R"),
    ("axial", 2, 0, 1, "L", "R"),
)
TRUTH, FOUND = "#2de1c2", "#ff9f1c"  # told apart by colour-blind readers, and on grey
CLOSE_MM = 25.0  # what is shown to each side of a landmark
FAINT = 0.03  # of a map's peak: less is not drawn


def draw_cases(
    prepared: PreparedCases,
    labels: list[str],
    found_vox: np.ndarray | None = None,
    *,
    titles: list[str] | None = None,
):
    """A row a case: slices through the middle of its landmarks, truth o and prediction +.

    All landmarks are drawn on each slice, in projection, and named in the first.

    Args:
      prepared: N cases.
      labels: L names.
      found_vox: [N, L, 3] predictions in grid voxels, or None.
      titles: N words to put before the cases' names.
    """
    n = len(prepared)
    figure, axes = _start(12, 4.2 * n, n)
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
            if found_vox is not None:
                found = found_vox[row] * spacing_mm
                for i in np.flatnonzero(there):  # which prediction is whose
                    ends = np.stack([mm[i], found[i]])
                    ax.plot(ends[:, right], ends[:, up], "-", color=FOUND, lw=0.7)
                ax.plot(found[:, right], found[:, up], "+", color=FOUND, ms=8, mew=1.6)
            if column == 0:
                for label, point in zip(np.array(labels)[there], mm[there], strict=True):
                    _name_point(ax, label, point[right], point[up], TRUTH)
            title = f"{titles[row]}: {case.name}" if titles else case.name
            ax.set_title(f"{title}, {view[0]}" if column == 0 else view[0], fontsize=10)
    legend = "o truth" if found_vox is None else "o truth    + prediction"
    figure.suptitle(legend, fontsize=9, color="#444444")
    return figure


def draw_landmark(shown: ShownCase):
    """Slices through one landmark of a case: truth o, prediction +, and the network's map.

    The slices go through the truth; how far the prediction is off the slice stands above each.
    """
    from matplotlib import colormaps

    figure, axes = _start(12, 4.4, 1)
    i, spacing_mm = shown.landmark, shown.spacing_mm
    truth, found = shown.points_vox[i], shown.found_vox[i]
    reach_mm = max(CLOSE_MM, shown.error_mm[i] + 5.0)
    for column, view in enumerate(VIEWS):
        ax = axes[0, column]
        name, cut, right, up, _, _ = view
        extent = _draw_slice(ax, shown.volume, view, truth, spacing_mm)
        map_ = _cut(shown.map, cut, truth)
        coloured = colormaps["inferno"](np.sqrt(map_))
        coloured[..., 3] = np.where(map_ > FAINT, 0.2 + 0.6 * map_, 0.0)
        ax.imshow(coloured, origin="lower", extent=extent, interpolation="bilinear")
        for point, mark, colour in ((truth, "o", TRUTH), (found, "+", FOUND)):
            at = point * spacing_mm
            style = {"mfc": "none"} if mark == "o" else {}
            ax.plot(at[right], at[up], mark, mec=colour, ms=11, mew=1.8, **style)
        middle = truth * spacing_mm
        ax.set_xlim(middle[right] - reach_mm, middle[right] + reach_mm)
        ax.set_ylim(middle[up] - reach_mm, middle[up] + reach_mm)
        ax.set_facecolor("black")
        off = abs(found[cut] - truth[cut]) * spacing_mm
        ax.set_title(f"{name}, prediction {off:.1f} mm off the slice", fontsize=9)
    figure.suptitle(
        f"{shown.title}: {shown.name}, {shown.labels[i]}, error {shown.error_mm[i]:.1f} mm, "
        f"confidence {shown.confidence[i]:.2f}    o truth   + prediction   glow: heatmap",
        fontsize=10,
    )
    return figure


def to_png(figure, dpi: int = 110) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def to_array(figure, dpi: int = 60) -> np.ndarray:
    """[H, W, 3] uint8."""
    figure.set_dpi(dpi)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


def save(figure, path: Path) -> None:
    """As PNG."""
    write_atomically(path, to_png(figure))


def _start(width: float, height: float, rows: int):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, len(VIEWS), squeeze=False)


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
