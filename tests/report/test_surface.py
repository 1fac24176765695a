"""The skin as a mesh: at its place in mm, in Slicer too, and the right way round in a picture."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from fetal_jax.geometry import apply_affine, voxel_sizes
from fetal_jax.report import surface as surfaces
from fetal_jax.report.surface import (
    draw_surface,
    extract_surface,
    find_threshold,
    have_pyvista,
    write_surface,
)

needs_pyvista = pytest.mark.skipif(not have_pyvista(), reason=surfaces.INSTALL)


def turn(degrees, axis):
    """[3, 3] rotation about one axis."""
    a = np.deg2rad(degrees)
    i, j = (k for k in range(3) if k != axis)
    rotation = np.eye(3)
    rotation[[i, i, j, j], [i, j, i, j]] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return rotation


def make_affine(spacing, *, mirrored=False):
    affine = np.eye(4)
    affine[:3, :3] = turn(25, 2) @ turn(-40, 0) @ np.diag(spacing)
    if mirrored:
        affine[:3, 0] *= -1
    affine[:3, 3] = [-12.0, 30.0, 7.0]
    return affine


def draw_ball(shape, affine, centre, radius_mm):
    """A ball in [0, 1] whose level 0.5 lies at the radius."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(apply_affine(affine, index) - centre, axis=-1)
    return np.clip(0.5 + (radius_mm - distance) / 4, 0, 1)


AFFINES = {
    "oblique": make_affine((1.0, 1.0, 1.0)),
    "thick slices": make_affine((0.8, 1.0, 1.6)),
    "mirrored": make_affine((1.2, 0.9, 1.0), mirrored=True),
}


@needs_pyvista
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_a_ball_has_its_centre_and_radius_in_mm(affine):
    shape = (40, 36, 30)
    centre, half_voxel = apply_affine(affine, [21.0, 17.0, 14.0]), voxel_sizes(affine).min() / 2
    voxels = draw_ball(shape, affine, centre, 10.0)
    voxels[0, 0, 0] = 1.0  # a speck
    surface = extract_surface(voxels, affine, 0.5, 0.5)
    outward = np.asarray(surface.points) - centre
    radii = np.linalg.norm(outward, axis=-1)
    assert np.abs(radii - 10).max() < half_voxel
    middle = (np.max(surface.points, axis=0) + np.min(surface.points, axis=0)) / 2
    np.testing.assert_allclose(middle, centre, atol=half_voxel)
    normals = np.asarray(surface.point_data["Normals"])
    assert ((normals * outward).sum(axis=-1) / radii).min() > 0.9
    assert surface.is_all_triangles and surface.is_manifold


@needs_pyvista
def test_a_surface_at_the_rim_is_closed_and_a_fine_one_is_thinned(monkeypatch):
    affine = make_affine((1.0, 1.0, 1.0))
    centre = apply_affine(affine, [0.0, 10.0, 10.0])
    voxels = draw_ball((20, 20, 20), affine, centre, 8.0)
    assert extract_surface(voxels, affine, 0.5, 0.0).is_manifold
    monkeypatch.setattr(surfaces, "MAX_TRIANGLES", 500)
    surface = extract_surface(voxels, affine, 0.5, 0.0)
    assert 400 < surface.n_cells <= 500


@needs_pyvista
def test_what_is_no_volume_or_has_no_such_level():
    with pytest.raises(ValueError, match=r"expected \[D, H, W\] and \[4, 4\], got \(3, 3\)"):
        extract_surface(np.zeros((3, 3)), np.eye(4), 0.5, 1.0)
    with pytest.raises(ValueError, match="expected a threshold between 0 and 0, got 0.5"):
        extract_surface(np.zeros((3, 3, 3)), np.eye(4), 0.5, 1.0)


def test_the_threshold_parts_dark_from_bright():
    voxels = np.full((20, 20, 20), 0.1)
    voxels[5:15, 5:15, 5:15] = 0.7
    assert 0.1 < find_threshold(voxels, np.eye(4), 0.0) < 0.7


@needs_pyvista
@pytest.mark.parametrize("name", ["face.vtk", "Müller & a b.vtk"])
def test_slicer_puts_the_written_points_where_they_are(tmp_path, name):
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOLegacy import vtkPolyDataReader

    affine = AFFINES["oblique"]
    voxels = draw_ball((24, 24, 24), affine, apply_affine(affine, [12, 12, 12]), 8.0)
    surface = extract_surface(voxels, affine, 0.5, 0.0)
    before = np.array(surface.points)
    path = tmp_path / name
    write_surface(path, surface)
    np.testing.assert_array_equal(surface.points, before)
    assert path.read_bytes().startswith(b"# vtk DataFile Version 4.2\n")
    reader = vtkPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    stored = vtk_to_numpy(reader.GetOutput().GetPoints().GetData())
    # vtkMRMLModelStorageNode looks for this, and takes a file without it for LPS
    assert "SPACE=LPS" in reader.GetHeader() and "SPACE=RAS" not in reader.GetHeader()
    np.testing.assert_allclose(stored * [-1, -1, 1], before, atol=1e-5)
    normals = vtk_to_numpy(reader.GetOutput().GetPointData().GetNormals())
    np.testing.assert_allclose(normals * [-1, -1, 1], surface.point_data["Normals"], atol=1e-5)
    assert reader.GetOutput().GetNumberOfPolys() == surface.n_cells


@needs_pyvista
def test_a_surface_in_a_format_that_slicer_could_mistake(tmp_path):
    import pyvista as pv

    with pytest.raises(ValueError, match="expected a name that ends in .vtk, got"):
        write_surface(tmp_path / "face.stl", pv.Sphere())


# A head that faces Anterior, with the wall of the womb before it.
LABELS = ["n", "pg", "exL", "exR", "prn"]
POINTS = np.array([[0, 19, 10], [0, 17, -12], [-14, 14, 9], [14, 14, 9], [0, 22, 0]], float)
POSES = {"upright": np.eye(3), "turned": turn(70, 0) @ turn(-130, 2)}


def draw_head(pose):
    """Voxels [40, 40, 40] of 2 mm, affine and the landmarks [5, 3]."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -39.0
    index = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), axis=-1)
    right, front, up = np.moveaxis(apply_affine(affine, index) @ pose, -1, 0)
    head = np.clip(0.5 + (22 - np.sqrt(right**2 + front**2 + up**2)) / 4, 0, 1)
    wall = (front > 34) & (front < 38)
    return np.maximum(head, wall), affine, POINTS @ pose.T


@needs_pyvista
@pytest.mark.parametrize("pose", POSES.values(), ids=POSES.keys())
def test_the_childs_right_is_on_the_left_and_no_wall_hides_it(tmp_path, monkeypatch, pose):
    monkeypatch.setattr(surfaces, "PANEL_PIXELS", 200)
    voxels, affine, truth = draw_head(pose)
    surface = extract_surface(voxels, affine, 0.5, 1.0)
    predicted = np.full((5, 3), np.nan)
    predicted[3] = truth[3] + pose @ [1.0, 1.0, -5.0]  # beneath the right eye
    path = tmp_path / "face.png"
    draw_surface(path, surface, truth, predicted, LABELS, np.ones(5, bool), views=("front",))
    picture = imread(path)[..., :3]
    rows, columns, _ = picture.shape
    panel = picture[: int(0.9 * rows)]  # without the legend
    assert (np.ptp(panel, axis=-1) > 0.05).mean() > 0.3  # skin
    yellow = np.argwhere((panel[..., :2].min(axis=-1) > 0.7) & (panel[..., 2] < 0.4))
    assert len(yellow) > 30
    down, across = yellow.mean(axis=0)
    assert across < 0.4 * columns
    blue = np.argwhere((panel[..., 2] > panel[..., 0] + 0.3) & (panel[..., 2] > 0.4))
    assert blue[:, 1].min() < 0.4 * columns < 0.6 * columns < blue[:, 1].max()
    near = blue[np.abs(blue[:, 1] - across) < 0.08 * columns]
    assert near[:, 0].mean() < down  # the eye is above: not upside down


@needs_pyvista
def test_the_side_view_looks_at_the_right_side_with_the_nose_to_the_viewers_right(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(surfaces, "PANEL_PIXELS", 200)
    voxels, affine, truth = draw_head(np.eye(3))
    predicted = np.full((5, 3), np.nan)
    predicted[4] = truth[4] + [0, 3.0, 0]
    path = tmp_path / "face.png"
    surface = extract_surface(voxels, affine, 0.5, 1.0)
    draw_surface(
        path, surface, truth, predicted, LABELS, np.zeros(5, bool), views=("side", "front")
    )
    picture = imread(path)[..., :3]
    rows, columns, _ = picture.shape
    panel = picture[: int(0.9 * rows), : columns // 2]
    nose = np.argwhere((panel[..., 2] < panel[..., 1] - 0.15) & (panel[..., 0] > 0.8))
    assert nose[:, 1].mean() > 0.6 * columns / 2


@needs_pyvista
def test_landmarks_of_another_kind_are_seen_from_anterior(tmp_path, monkeypatch):
    monkeypatch.setattr(surfaces, "PANEL_PIXELS", 100)
    voxels, affine, truth = draw_head(np.eye(3))
    surface = extract_surface(voxels, affine, 0.5, 1.0)
    predicted = np.full((5, 3), np.nan)
    predicted[3] = truth[3]
    names = ["1", "2", "3", "4", "5"]
    path = tmp_path / "face.png"
    draw_surface(path, surface, truth, predicted, names, np.ones(5, bool), views=("front",))
    picture = imread(path)[..., :3]
    panel = picture[: int(0.9 * len(picture))]
    yellow = np.argwhere((panel[..., :2].min(axis=-1) > 0.7) & (panel[..., 2] < 0.4))
    assert len(yellow) and yellow[:, 1].mean() < 0.45 * picture.shape[1]


@needs_pyvista
def test_landmarks_far_from_the_surface_are_drawn_alone(tmp_path, monkeypatch):
    import pyvista as pv

    monkeypatch.setattr(surfaces, "PANEL_PIXELS", 100)
    path = tmp_path / "face.png"
    ball = pv.Sphere(radius=5, center=(0, 500, 0))
    draw_surface(path, ball, POINTS, np.full((5, 3), np.nan), LABELS, np.ones(5, bool))
    blue = (imread(path)[..., 2] - imread(path)[..., 0]) > 0.3
    assert blue.any() and path.stat().st_size > 1000


@needs_pyvista
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted_mm": np.zeros((4, 3))}, r"expected \[5, 3\], \[5, 3\] and \[5\], got"),
        ({"visible": [True]}, r"expected \[5, 3\], \[5, 3\] and \[5\], got"),
        ({"views": ("back",)}, "expected views among front, three-quarter, side, got back"),
        ({"views": ()}, "expected views among"),
        ({"truth_mm": np.full((5, 3), np.nan)}, "expected a landmark with a position, got none"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, change, message):
    nothing = np.full((5, 3), np.nan)
    arguments = {"truth_mm": POINTS, "predicted_mm": nothing, "visible": np.ones(5, bool)} | change
    with pytest.raises(ValueError, match=message):
        draw_surface(tmp_path / "face.png", None, labels=LABELS, **arguments)
    assert not list(tmp_path.iterdir())


def test_without_pyvista(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    assert not have_pyvista()
    assert "pyvista>=" in surfaces.INSTALL
