"""The skin of a volume as a mesh: pictures of the face with its landmarks, and a file for Slicer.

Needs PyVista, which is optional: `have_pyvista` says whether it is there, `INSTALL` how to get it.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from fetal_jax import geometry
from fetal_jax.io.files import split_suffix, write_atomically
from fetal_jax.report.face_frame import find_axes, score_thresholds
from fetal_jax.report.figures import ERROR_LINE, ON_SKIN, SKIN, SOFT_INK, take_literally

if TYPE_CHECKING:
    from pyvista import PolyData

INSTALL = 'pip install "pyvista>=0.46,<0.50"'
MAX_TRIANGLES = 60_000
SMALL_PIECE = 0.01  # of the largest piece's points: below it is speckle
PALE = 0.4  # opacity of what is not visible in the scan
FRONT_MARGIN_MM = 8.0  # what is farther in front of the face is a hand, the cord or the womb
FRONT_SLOPE = 0.6  # beneath a landmark the limit draws back so many mm a mm, as a face does
NECK = 0.4  # of the landmarks' height is left beneath the lowest of them
HALF_FACE, HALF_WHOLE = 0.95, 0.65  # of a panel's side, in extents of the landmarks
HEADROOM = 0.12  # of half a panel: so far its middle lies above that of a face
BALL = 0.021  # radius of a landmark, in extents of them all
SCALE_BAR_MM = 10.0
LIFT_RADII = 6.0  # so deep beneath the skin, in its own radii, a landmark still shows
PANEL_PIXELS = 900
FRAME_PAIRS = ("ex",)  # the eyes' outer corners say which way is right
WORLD = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])  # Right, Superior, Anterior
# where the viewer stands, in shares of (right, up, front) of the child
VIEWS = {"front": (0, 0, 1), "three-quarter": (0.62, 0.12, 0.78), "side": (1, 0, 0)}


def have_pyvista() -> bool:
    """Whether surfaces can be made and drawn here."""
    try:
        import pyvista  # noqa: F401
    except ImportError:  # missing, or without a library of the system that VTK wants
        return False
    return True


def find_threshold(voxels: np.ndarray, affine: np.ndarray, smooth_mm: float) -> float:
    """The level that best parts the smoothed volume [D, H, W] into dark and bright, by Otsu.

    Args:
      affine: [4, 4], voxel centres -> RAS+ mm.
      smooth_mm: standard deviation of the gaussian.
    """
    counts, edges = np.histogram(_smooth(voxels, affine, smooth_mm), 256)
    score = score_thresholds(counts, (edges[1:] + edges[:-1]) / 2)
    return float(edges[1:][np.argmax(score)])


def extract_surface(
    voxels: np.ndarray, affine: np.ndarray, threshold: float, smooth_mm: float
) -> "PolyData":
    """The surface where the smoothed volume crosses a threshold, closed at the volume's rim.

    Pieces that are small beside the largest are left out; what is left is thinned to at most
    MAX_TRIANGLES.

    Args:
      voxels: [D, H, W] in [0, 1].
      affine: [4, 4], voxel centres -> RAS+ mm.
      threshold: between the volume's least and greatest value.
      smooth_mm: standard deviation of the gaussian.

    Returns:
      pyvista.PolyData in RAS+ mm: triangles, with normals that point to the dark side.

    Raises:
      ValueError: another shape, or no surface at this threshold.
    """
    import pyvista as pv

    voxels, affine = np.asarray(voxels), np.asarray(affine, np.float64)
    if voxels.ndim != 3 or affine.shape != (4, 4):
        raise ValueError(f"expected [D, H, W] and [4, 4], got {voxels.shape} and {affine.shape}")
    smooth = np.pad(_smooth(voxels, affine, smooth_mm), 1)
    if not smooth.min() < threshold < smooth.max():
        low, high = smooth.min(), smooth.max()
        raise ValueError(f"expected a threshold between {low:.3g} and {high:.3g}, got {threshold}")
    image = pv.ImageData(dimensions=smooth.shape, origin=(-1, -1, -1))
    image.point_data["level"] = smooth.ravel(order="F")  # VTK counts the first axis fastest
    mesh = image.contour([threshold], scalars="level", method="flying_edges", compute_normals=False)
    mesh.clear_data()
    mesh = _drop_small_pieces(mesh)
    if mesh.n_cells > MAX_TRIANGLES:
        mesh = mesh.decimate(1 - MAX_TRIANGLES / mesh.n_cells)
    mesh.points = geometry.apply_affine(affine, mesh.points).astype(np.float32)
    if np.linalg.det(affine) < 0:  # a mirroring turns each triangle's inside out
        mesh = mesh.flip_faces()
    return mesh.compute_normals(
        cell_normals=False,
        split_vertices=False,
        consistent_normals=False,
        auto_orient_normals=False,
    )


def write_surface(path: Path, surface: "PolyData") -> None:
    """Write a surface in RAS+ mm as a `.vtk` file that Slicer opens at the right place.

    The points in the file are LPS and the header says so, as in Slicer's own files: a program that
    does not read the header takes a model for LPS too.

    Raises:
      ValueError: another suffix: Slicer would read it in other axes.
      OSError: VTK cannot write the surface.
    """
    from vtkmodules.vtkIOLegacy import vtkPolyDataWriter

    if not split_suffix(path, (".vtk",))[1]:
        raise ValueError(f"expected a name that ends in .vtk, got {str(path)!r}")
    flip = np.diag([*geometry.LPS_TO_RAS, 1.0])  # a half turn: inside and outside stay
    writer = vtkPolyDataWriter()
    writer.SetInputData(surface.transform(flip, inplace=False))
    writer.SetHeader("fetal_jax. SPACE=LPS")
    writer.SetFileVersion(42)  # 5.1 is for VTK 9 alone
    writer.SetFileTypeToBinary()
    writer.WriteToOutputStringOn()
    if not writer.Write():
        raise OSError(f"{path}: expected a surface that VTK can write, got an error of its writer")
    data = writer.GetOutputStdString()
    write_atomically(path, data if isinstance(data, bytes) else data.encode())


def draw_surface(
    path_png: Path,
    surface: "PolyData",
    truth_mm: np.ndarray,
    predicted_mm: np.ndarray,
    labels: Sequence[str],
    visible: np.ndarray,
    views: Sequence[str] = ("front", "three-quarter", "side"),
) -> None:
    """A panel a view of the surface, with truth and prediction as spheres and a line between them.

    Landmarks show up to a few mm beneath the skin; those that are not visible in the scan are
    translucent. What lies more than FRONT_MARGIN_MM before the foremost landmark is cut away, and
    of a face also what is before the chin, beneath the neck or apart from it.

    Args:
      path_png: of the picture.
      surface: of `extract_surface`.
      truth_mm, predicted_mm: [L, 3] RAS+ mm; NaN where there is none.
      labels: L names; where they are a face's the viewer stands before it, else at Anterior.
      visible: [L] bool.
      views: keys of VIEWS.

    Raises:
      ValueError: shapes that do not fit, an unknown view, or no landmark at all.
    """
    truth_mm, predicted_mm = np.asarray(truth_mm, float), np.asarray(predicted_mm, float)
    visible = np.asarray(visible, bool)
    n = len(labels)
    if truth_mm.shape != (n, 3) or predicted_mm.shape != (n, 3) or visible.shape != (n,):
        shapes = f"{truth_mm.shape}, {predicted_mm.shape} and {visible.shape}"
        raise ValueError(f"expected [{n}, 3], [{n}, 3] and [{n}], got {shapes}")
    if not views or set(views) - set(VIEWS):
        raise ValueError(f"expected views among {', '.join(VIEWS)}, got {', '.join(views)}")
    points = np.where(np.isfinite(truth_mm), truth_mm, predicted_mm)  # an outlier must not aim
    there = points[np.isfinite(points).all(axis=-1)]
    if not len(there):
        raise ValueError("expected a landmark with a position, got none")
    axes = find_axes(labels, points, pairs=FRAME_PAIRS)
    of_a_face, axes = axes is not None, WORLD if axes is None else axes
    _, up, front = axes
    centre = (there.min(axis=0) + there.max(axis=0)) / 2
    size_mm = max(np.ptp(there, axis=0).max(), SCALE_BAR_MM / 2)
    half_mm = (HALF_FACE if of_a_face else HALF_WHOLE) * size_mm
    radius_mm = BALL * size_mm
    if of_a_face:
        mesh = _free_face(surface, there, axes)
        centre = centre + HEADROOM * half_mm * up
    else:
        foremost = there[np.argmax(there @ front)]
        mesh = surface.clip(normal=front, origin=foremost + FRONT_MARGIN_MM * front)
    panels = []
    with _hush_missing_display():
        for view in views:
            toward = np.array(VIEWS[view]) @ axes
            camera = (centre, toward / np.linalg.norm(toward), up, half_mm)
            panels.append(_shoot(mesh, truth_mm, predicted_mm, visible, radius_mm, camera))
    write_atomically(path_png, _compose(panels, views, half_mm, visible, truth_mm, predicted_mm))


def _smooth(voxels, affine, smooth_mm):
    sigmas = smooth_mm / geometry.voxel_sizes(np.asarray(affine, np.float64))
    return ndimage.gaussian_filter(np.asarray(voxels, np.float32), sigmas)


def _drop_small_pieces(mesh):
    pieces = mesh.connectivity("all")  # which sorts the points anew
    region = np.asarray(pieces.point_data["RegionId"])
    sizes = np.bincount(region)
    return _pick(pieces, np.flatnonzero(sizes >= SMALL_PIECE * sizes.max()))


def _free_face(surface, points, axes):
    """The surface without what hides the face [L, 3]: a hand, the cord, the wall of the womb.

    How far forward the face may reach falls from the nose to the chin. The cut at the neck parts
    the face from a wall that touches the chest.
    """
    place = np.asarray(surface.points, np.float64) @ axes.T
    marks = points @ axes.T
    beneath = np.maximum(marks[:, 1] - place[:, 1, None], 0)  # [V, L]
    limit = (marks[:, 2] - FRONT_SLOPE * beneath).max(axis=1) + FRONT_MARGIN_MM
    neck = marks[:, 1].min() - NECK * np.ptp(marks[:, 1])
    face = surface.copy()
    face["excess"] = np.maximum(place[:, 2] - limit, neck - place[:, 1])
    face = face.clip_scalar(scalars="excess", value=0.0).triangulate().connectivity("all")
    if not face.n_points:
        return face
    region = np.asarray(face.point_data["RegionId"])
    return _pick(face, region[[face.find_closest_point(point) for point in points]])


def _pick(pieces, regions):
    """The pieces of a mesh whose RegionId is among `regions`."""
    import pyvista as pv

    keep = np.isin(pieces.point_data["RegionId"], regions)
    faces = pieces.regular_faces  # [T, 3] of indices
    faces = (np.cumsum(keep) - 1)[faces[keep[faces[:, 0]]]]
    return pv.PolyData.from_regular_faces(np.asarray(pieces.points)[keep], faces)


def _shoot(mesh, truth_mm, predicted_mm, visible, radius_mm, camera):
    """One view as pixels [P, P, 3], parallel projection, 2 half_mm wide."""
    import pyvista as pv

    centre, toward, up, half_mm = camera
    # towards the viewer: this moves nothing in the picture, and lifts what lies beneath the skin
    lift = toward * LIFT_RADII * radius_mm
    plotter = pv.Plotter(off_screen=True, window_size=(PANEL_PIXELS,) * 2, lighting="none")
    plotter.set_background("white")
    if mesh.n_points:
        plotter.add_mesh(
            mesh, color=SKIN, smooth_shading=True, ambient=0.3, diffuse=0.8, specular=0.12,
            specular_power=12,
        )  # fmt: skip
    for points, color in zip((truth_mm, predicted_mm), ON_SKIN, strict=True):
        for seen in (True, False):
            there = np.isfinite(points).all(axis=-1) & (visible == seen)
            if there.any():
                balls = [pv.Sphere(radius=radius_mm, center=p + lift) for p in points[there]]
                opacity = 1.0 if seen else PALE
                plotter.add_mesh(pv.merge(balls), color=color, opacity=opacity, ambient=0.35)
    for a, b in zip(truth_mm, predicted_mm, strict=True):
        if np.isfinite([a, b]).all() and np.linalg.norm(a - b) > radius_mm:
            line = pv.Tube(pointa=a + lift, pointb=b + lift, radius=0.25 * radius_mm)
            plotter.add_mesh(line, color=ERROR_LINE)
    across = np.cross(up, toward)  # to the viewer's right
    for place, intensity in (((-0.6, 0.7, 0.9), 0.85), ((0.8, 0.1, 0.8), 0.3)):
        where = place[0] * across + place[1] * up + place[2] * toward
        light = pv.Light(position=centre + 10 * half_mm * where, focal_point=centre)
        light.intensity = intensity
        plotter.add_light(light)
    plotter.camera.focal_point = centre
    plotter.camera.position = centre + 10 * half_mm * toward
    plotter.camera.up = up
    plotter.camera.parallel_projection = True
    plotter.camera.parallel_scale = half_mm
    plotter.reset_camera_clipping_range()
    plotter.enable_anti_aliasing("ssaa")
    pixels = plotter.screenshot(return_img=True)
    plotter.close()
    return pixels


@contextmanager
def _hush_missing_display() -> Iterator[None]:
    """VTK warns that there is no X server, and then draws without one."""
    from vtkmodules.vtkCommonCore import vtkLogger

    before = vtkLogger.GetCurrentVerbosityCutoff()
    if not os.environ.get("DISPLAY"):
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtkLogger.SetStderrVerbosity(before)


def _compose(panels, views, half_mm, visible, truth_mm, predicted_mm) -> bytes:
    """The panels side by side, with titles, a legend and a scale bar, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(4 * len(panels), 4.35), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(0.005, 0.08, 0.995, 0.94, wspace=0.02)
    for ax, view, pixels in zip(axes, views, panels, strict=True):
        ax.imshow(pixels, extent=(-half_mm, half_mm) * 2, interpolation="antialiased")
        ax.set_title(view, fontsize=11)
        ax.set_axis_off()
    low, left = -0.95 * half_mm, 0.95 * half_mm - SCALE_BAR_MM
    axes[-1].plot([left, left + SCALE_BAR_MM], [low, low], "-", color="black", lw=2.5)
    axes[-1].text(
        left + SCALE_BAR_MM / 2, low + 0.03 * half_mm, f"{SCALE_BAR_MM:.0f} mm", fontsize=9,
        ha="center", va="bottom",
    )  # fmt: skip
    handles = []
    named = zip(("truth", "prediction"), ON_SKIN, (truth_mm, predicted_mm), strict=True)
    for name, color, points in named:
        there = np.isfinite(points).all(axis=-1)
        for seen, suffix in ((True, ""), (False, ", not visible in the scan")):
            if (there & (visible == seen)).any():
                handles.append(
                    Line2D(
                        [],
                        [],
                        ls="",
                        marker="o",
                        ms=8,
                        mfc=color,
                        mec=SOFT_INK,
                        mew=0.5,
                        alpha=1.0 if seen else PALE,
                        label=name + suffix,
                    )  # fmt: skip
                )
    columns = len(handles) if len(panels) > 1 else 2
    figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=9, frameon=False)
    buffer = io.BytesIO()
    take_literally(figure)
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
