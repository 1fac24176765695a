"""Make the README's pictures: `python docs/make_pictures.py`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import faces  # noqa: E402

from fetal_jax import artefacts  # noqa: E402
from fetal_jax.augment import Augmentation  # noqa: E402
from fetal_jax.elastic import random_elastic  # noqa: E402
from fetal_jax.examples import Examples  # noqa: E402
from fetal_jax.landmarks import LABELS  # noqa: E402
from fetal_jax.phantom import anatomy, cohort, surroundings  # noqa: E402

MARK, HIDDEN = "#2de1c2", "#ff9f1c"
SPACING_MM, SIDE = 0.6, 170
STEP_MM = 0.6  # of the slices, in the child's own frame
HALF_MM = 46.0
sample_scene = jax.jit(cohort.sample_scene)
render = jax.jit(cohort.render_scene, static_argnames="shape")


def make_scene(
    seed: int, age_weeks: float, *, site: int = 0, kind: str = "none", aside: bool = False
) -> cohort.Scene:
    """A scene: what lies in front and where the probe looks are chosen, the rest is sampled."""
    subject_key, key = jax.random.split(jax.random.key(seed))
    kind = jnp.int32(surroundings.KINDS.index(kind))
    return sample_scene(subject_key, key, age_weeks, site, kind=kind, aside=jnp.bool_(aside))


def slice_face(scene: cohort.Scene) -> dict[str, np.ndarray]:
    """Sagittal, coronal and axial slices and a maximum projection, in the child's own frame.

    Each is [rows from below, columns], HALF_MM to each side; the projection leaves out what lies in
    front of the nose, as a sonographer's box would.
    """
    spacing = jnp.full(3, SPACING_MM)
    origin = -0.5 * (SIDE - 1) * spacing
    volume = np.asarray(render(scene, spacing, origin, shape=(SIDE,) * 3))
    own = dict(zip(anatomy.POINTS, np.asarray(scene.own), strict=True))
    middle_y = 0.5 * (own["n"][1] + own["gn"][1])
    ticks = np.arange(-HALF_MM, HALF_MM + 0.1, STEP_MM)

    def sample(x, y, z):
        x, y, z = np.broadcast_arrays(x, y, z)
        at = np.stack([x, z, y], axis=-1).reshape(-1, 3)  # RAS is (x, z, y)
        world = np.asarray(cohort.apply_pose(scene.pose, jnp.asarray(at, jnp.float32)))
        index = (world - np.asarray(origin)) / SPACING_MM
        return ndimage.map_coordinates(volume, index.T, order=1).reshape(x.shape)

    up, across = (ticks + middle_y)[:, None], ticks[None, :]
    depth = ticks[None, :] - 14.0
    eye_y, eye_z = own["enL"][1], 0.5 * (own["enL"][2] + own["exL"][2]) - 3.0
    deep = np.arange(own["exL"][2] - 12.0, own["prn"][2] + 1.5, STEP_MM)
    # seen from the front: the child's right is on the left
    return {
        "sagittal": sample(0.0, up, depth),
        "coronal": sample(-across, up, eye_z),
        "axial": sample(-across, eye_y, (ticks - 14.0)[:, None]),
        "maximum": sample(-across[..., None], up[..., None], deep[None, None, :]).max(axis=-1),
    }


def show(ax: Axes, image: np.ndarray, title: str = "") -> None:
    extent = (-HALF_MM, HALF_MM) * 2
    ax.imshow(image, cmap="gray", origin="lower", extent=extent, vmin=0, vmax=1)
    ax.set_title(title, fontsize=11)


def show_surface(
    ax: Axes,
    scene: cohort.Scene,
    angles: tuple[float, float],
    title: str = "",
    *,
    marks: bool = True,
) -> None:
    own = np.asarray(scene.own)
    size = float(scene.face.scale[1])
    centre = np.array([0.0, 0.5 * (own[0, 1] + own[-1, 1]), -14.0 * size])
    camera = faces.aim_camera(*angles)
    image = faces.shade_face(scene.face, camera, centre, half_width_mm=HALF_MM, pixels=360)
    ax.imshow(image, extent=(-HALF_MM, HALF_MM) * 2)
    if marks:
        at = faces.project_points(own, camera, centre)
        sides = "R" if angles[0] else "LR"
        shown = [i for i, label in enumerate(LABELS) if label[-1] not in set("LR") - set(sides)]
        ax.plot(at[shown, 0], at[shown, 1], "o", color=MARK, ms=3.5)
    ax.set_title(title, fontsize=11)


def save(figure: Figure, axes: np.ndarray, name: str) -> None:
    for ax in axes.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    figure.savefig(HERE / name, dpi=64)


def draw_ages() -> None:
    ages = (20, 24, 28, 32, 36)
    columns = ("surface, front", "surface, side", "sagittal", "coronal", "axial", "maximum")
    figure = Figure(figsize=(18, 3.05 * len(ages)), layout="constrained", facecolor="white")
    axes = figure.subplots(len(ages), len(columns))
    for row, age, seed in zip(axes, ages, range(202, 207), strict=True):
        scene = make_scene(seed, float(age))
        slices = slice_face(scene)
        show_surface(row[0], scene, (0, 0))
        show_surface(row[1], scene, (72, 4))
        for ax, name in zip(row[2:], columns[2:], strict=True):
            show(ax, slices[name])
        row[0].set_ylabel(f"{age} weeks", fontsize=13)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=13)
    save(figure, axes, "phantom-ages.png")


def draw_failures() -> None:
    rows = (
        ("a hand in front", make_scene(38, 28.0, kind="hand")),
        ("half of the face out of the fan", make_scene(23, 27.0, aside=True)),
        ("an arm and its shadow", make_scene(18, 26.0, kind="arm")),
        ("the cord; the second site", make_scene(26, 29.0, kind="cord", site=1)),
    )
    columns = ("sagittal", "coronal", "axial", "maximum")
    figure = Figure(figsize=(13, 3.2 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), len(columns))
    for row, (title, scene) in zip(axes, rows, strict=True):
        slices = slice_face(scene)
        for ax, name in zip(row, columns, strict=True):
            show(ax, slices[name])
        own = np.asarray(scene.own)[: len(LABELS)]
        middle_y = 0.5 * (scene.own[0, 1] + scene.own[-1, 1])
        seen = np.asarray(scene.visible)
        for shown, color, mark in ((seen, MARK, "o"), (~seen, HIDDEN, "x")):
            row[3].plot(-own[shown, 0], own[shown, 1] - middle_y, mark, mfc="none", mec=color, ms=6)
        row[0].set_ylabel(f"{title}\n{int(seen.sum())} of {len(LABELS)} visible", fontsize=11)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=13)
    save(figure, axes, "phantom-failures.png")


def draw_title() -> None:
    scene = make_scene(13, 29.0)
    figure = Figure(figsize=(15, 5.5), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3)
    for ax, title, angles in (
        (axes[0], "a phantom of 29 weeks", (0, 0)),
        (axes[1], "from its right", (68, 6)),
    ):
        show_surface(ax, scene, angles, title)
    show(axes[2], slice_face(scene)["sagittal"], "its simulated ultrasound, sagittal")
    save(figure, axes, "phantom.png")


def make_example() -> Examples:
    """A phantom face of 29 weeks as a network sees one, on a grid of 96³ at 1 mm."""
    scene, side = make_scene(13, 29.0), 96
    origin = jnp.full(3, -0.5 * (side - 1))
    volume = render(scene, jnp.ones(3), origin, shape=(side,) * 3)
    own = np.asarray(scene.own)[: len(LABELS), [0, 2, 1]]  # RAS is (x, z, y)
    points = cohort.apply_pose(scene.pose, jnp.asarray(own)) - origin
    there = jnp.ones(len(LABELS), bool)
    return Examples(volume, points_vox=points, present=there, visible=jnp.asarray(scene.visible))


def draw_augmentations() -> None:
    """A row for each: before, and the three of 32 draws that change the slice at the nose most.

    Most draws are milder, and many a shadow lies beside that slice.
    """
    rows: tuple[tuple[str, Augmentation], ...] = (
        ("elastic, strain 0.9", random_elastic(max_strain=0.9)),
        ("speckle, share 1", artefacts.random_speckle(max_speckle=1.0)),
        ("time-gain, 30 dB", artefacts.random_attenuation(max_attenuation_db=30.0)),
        ("shadow, 40 dB", artefacts.random_shadow(max_shadow_db=40.0)),
        ("dropout, 20 degrees", artefacts.random_dropout(max_dropout_degrees=20.0)),
    )
    example = make_example()
    figure = Figure(figsize=(13, 3.2 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), 4)
    for row, (title, augmentation) in zip(axes, rows, strict=True):
        draw = jax.jit(augmentation)
        draws = [draw(jax.random.key(i), example) for i in range(32)]
        draws.sort(key=lambda drawn: -np.abs(slice_nose(drawn) - slice_nose(example)).mean())
        for ax, shown in zip(row, [example, *draws[:3]], strict=True):
            show_example(ax, shown)
        row[0].set_ylabel(title, fontsize=11)
    for ax, name in zip(axes[0], ("before", "three of 32 draws", "", ""), strict=True):
        ax.set_title(name, fontsize=13)
    save(figure, axes, "augmentations.png")


def slice_nose(example: Examples) -> np.ndarray:
    """The sagittal slice through the tip of the nose."""
    return np.asarray(example.volumes)[round(float(example.points_vox[LABELS.index("prn"), 0]))]


def show_example(ax: Axes, example: Examples) -> None:
    """The slice, and the landmarks within 6 voxels of it."""
    points = np.asarray(example.points_vox)
    near = np.abs(points[:, 0] - points[LABELS.index("prn"), 0]) < 6
    ax.imshow(slice_nose(example).T, cmap="gray", origin="lower", vmin=0, vmax=1)
    ax.plot(points[near, 1], points[near, 2], "o", mfc="none", mec=MARK, ms=6)


if __name__ == "__main__":
    draw_title()
    draw_ages()
    draw_failures()
    draw_augmentations()
