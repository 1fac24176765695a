"""Pictures of cases: three slices each, with landmarks over them."""

import io
from pathlib import Path

import numpy as np

from fetal_jax.io.files import write_atomically
from fetal_jax.preprocess import PreparedCases

# array axis that is cut, the axes drawn to the right and up, and what their ends are called
VIEWS = (
    ("sagittal", 0, 1, 2, "P", "A"),
    ("coronal", 1, 0, 2, "L", "R"),
    ("axial", 2, 0, 1, "L", "R"),
)
TRUTH, FOUND = "#2de1c2", "#ff9f1c"  # told apart by colour-blind readers, and on grey


def draw_cases(
    path: Path,
    prepared: PreparedCases,
    labels: list[str],
    found_vox: np.ndarray | None = None,
    *,
    titles: list[str] | None = None,
) -> None:
    """A row a case: slices through the middle of its landmarks, truth o and prediction +.

    All landmarks are drawn on each slice, in projection, and named in the first.

    Args:
      path: of the PNG.
      prepared: N cases.
      labels: L names.
      found_vox: [N, L, 3] predictions in grid voxels, or None.
      titles: N words to put before the cases' names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    n = len(prepared)
    figure = Figure(figsize=(12, 4.2 * n), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(n, 3, squeeze=False)
    for row, case in enumerate(prepared.cases):
        volume = prepared.volumes[row].astype(np.float32)
        there = prepared.present[row]
        points = prepared.points_vox[row]
        middle = points[there].mean(axis=0) if there.any() else (np.array(volume.shape) - 1) / 2
        spacing_mm = prepared.grids[row].spacing_mm
        for column, (view, cut, right, up, low, high) in enumerate(VIEWS):
            ax = axes[row, column]
            at = int(np.clip(round(middle[cut]), 0, volume.shape[cut] - 1))
            extent = np.array([-0.5, volume.shape[right] - 0.5, -0.5, volume.shape[up] - 0.5])
            ax.imshow(
                np.take(volume, at, axis=cut).T,  # what is left is (right, up)
                cmap="gray",
                vmin=0,
                vmax=1,
                origin="lower",
                extent=extent * spacing_mm,
                interpolation="bilinear",
            )
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
                    ax.annotate(
                        label,
                        (point[right], point[up]),
                        xytext=(5, 3),
                        textcoords="offset points",
                        color=TRUTH,
                        fontsize=7,
                    )
            title = f"{titles[row]}: {case.name}" if titles else case.name
            ax.set_title(f"{title}, {view}" if column == 0 else view, fontsize=10)
            ax.set_xlabel(f"{low} – {high}, mm", fontsize=8)
            ax.tick_params(labelsize=7)
        axes[row, 0].set_ylabel("I – S, mm", fontsize=8)
    legend = "o truth" if found_vox is None else "o truth    + prediction"
    figure.suptitle(legend, fontsize=9, color="#444444")
    _save(figure, path)


def _save(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())
