"""Makes docs/phantom.png, the README's picture: `python docs/make_picture.py`."""

import sys
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fetal_jax.phantom import anatomy, cohort  # noqa: E402
from fetal_jax.report import faces  # noqa: E402

SEED, CASE, AGE_WEEKS = 0, 4, 29.0
MARK = "#2de1c2"


def main() -> None:
    key = jax.random.fold_in(jax.random.key(SEED), CASE)
    scene = cohort.draw_scene(key, AGE_WEEKS)
    volume = np.asarray(cohort.render_scene(scene, side=160, spacing_mm=0.6))
    own = np.asarray(anatomy.place_landmarks(scene.face))
    centre = np.array([0.0, -14.0, -14.0])
    half = 46.0

    figure = Figure(figsize=(15, 5.1), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3)
    for ax, title, angles in (
        (axes[0], "front", (0, 0)),
        (axes[1], "from the child's right", (68, 6)),
    ):
        camera = faces.aim_camera(*angles)
        image = faces.render_face(scene.face, camera, centre, half_width_mm=half, pixels=420)
        ax.imshow(image, extent=(-half, half, -half, half))
        at = faces.project_points(own, camera, centre)
        shown = [i for i, label in enumerate(anatomy.LABELS) if angles[0] == 0 or label[-1] != "L"]
        ax.plot(at[shown, 0], at[shown, 1], "o", color=MARK, ms=4)
        for i in shown:
            label = anatomy.LABELS[i]
            ax.annotate(label, at[i], (4, 3), textcoords="offset points", color=MARK, fontsize=8)
        ax.set_title(f"phantom of {AGE_WEEKS:.0f} weeks, {title}")
    points = np.asarray(scene.landmarks)
    middle = np.array([anatomy.MIRROR[label] == label for label in anatomy.LABELS])
    cut = int(round(points[middle, 0].mean() / 0.6 + 79.5))
    axes[2].imshow(
        volume[cut].T, cmap="gray", origin="lower", extent=(-48, 48, -48, 48), vmin=0, vmax=1
    )
    axes[2].plot(points[middle, 1], points[middle, 2], "o", mfc="none", mec=MARK, ms=7)
    axes[2].set_title("its simulated volume, sagittal slice")
    for ax in axes:
        ax.set_axis_off()
    figure.savefig(HERE / "phantom.png", dpi=80)


if __name__ == "__main__":
    main()
