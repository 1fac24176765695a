"""A scene for 3D Slicer: every reference leads somewhere, and every file says the same place."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fetal_jax.io import slicer_scene
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.slicer_scene import write_scene
from fetal_jax.io.volumes import Volume, read_volume

AFFINE = np.array([[0, 0, -1.2, 40.0], [-0.6, 0.8, 0, 5.0], [0.8, 0.6, 0, -30.0], [0, 0, 0, 1.0]])
TRUTH = {
    "n": np.array([1.0, -2.0, 3.0]),
    "pg": np.array([1.5, -2.0, -30.0]),
    "exL": np.full(3, np.nan),
}
PREDICTED = {
    "n": np.array([1.0, -2.0, 4.25]),
    "pg": np.full(3, np.nan),
    "exL": np.array([-20.0, 0.0, 0.0]),
}
# tag -> beginning of its ids, and what the files of a storage are called
CLASSES = {
    "Volume": "vtkMRMLScalarVolumeNode",
    "VolumeDisplay": "vtkMRMLScalarVolumeDisplayNode",
    "VolumeArchetypeStorage": "vtkMRMLVolumeArchetypeStorageNode",
    "SliceComposite": "vtkMRMLSliceCompositeNode",
    "MarkupsFiducial": "vtkMRMLMarkupsFiducialNode",
    "MarkupsFiducialDisplay": "vtkMRMLMarkupsFiducialDisplayNode",
    "MarkupsJsonStorage": "vtkMRMLMarkupsJsonStorageNode",
    "Model": "vtkMRMLModelNode",
    "ModelDisplay": "vtkMRMLModelDisplayNode",
    "ModelStorage": "vtkMRMLModelStorageNode",
}
STORED = {"Volume": ".nii.gz", "MarkupsFiducial": ".mrk.json", "Model": ".vtk"}


def make_volume(dtype=np.uint8):
    voxels = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    return Volume(voxels, AFFINE, Path("case.nii.gz"))


def read_scene(path):
    root = ElementTree.fromstring(path.read_bytes())
    assert root.tag == "MRML"
    return root, {node.get("id"): node for node in root}


def follow(node, nodes):
    """Role -> the nodes that an element refers to."""
    roles = [role.split(":") for role in node.get("references").rstrip(";").split(";")]
    return {role: [nodes[node_id] for node_id in ids.split()] for role, ids in roles}


def decode(name):
    """As Slicer does (vtkMRMLNode::URLDecodeString)."""
    for code, letter in zip(("%22", "%3C", "%3E", "%27", "%20", "%25"), "\"<>' %", strict=True):
        name = name.replace(code, letter)
    return name


def stored_file(path, node, nodes):
    (storage,) = follow(node, nodes)["storage"]
    return path.parent / decode(storage.get("fileName"))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "surface.vtk"
    path.write_bytes(b"# vtk DataFile Version 4.2\nfetal_jax. SPACE=LPS\n")
    return path


def test_every_reference_is_there_and_every_file_is_of_its_kind(tmp_path, model):
    path = write_scene(
        tmp_path / "scene", "case", make_volume(), truth=TRUTH, predicted=PREDICTED, model=model
    )
    assert path == tmp_path / "scene" / "case.mrml"
    root, nodes = read_scene(path)
    assert len(nodes) == len(root)  # no id twice
    for node in root:
        assert node.get("id").startswith(CLASSES[node.tag])
        for role, (target,) in follow(node, nodes).items() if "references" in node.keys() else ():
            if role == "backgroundVolume":
                assert target.tag == "Volume"
            else:
                assert target.tag.endswith(role.title())  # ModelDisplay, ModelStorage
    shown = [node for node in root if node.tag in STORED]
    assert sorted(node.tag for node in shown) == ["MarkupsFiducial"] * 2 + ["Model", "Volume"]
    for node in shown:
        assert set(follow(node, nodes)) == {"display", "storage"}
        file = stored_file(path, node, nodes)
        assert file.is_file() and file.name.endswith(STORED[node.tag])
        assert file.parent == path.parent  # relative, and in the same folder
    (model_storage,) = (node for node in root if node.tag == "ModelStorage")
    assert model_storage.get("coordinateSystem") == "LPS"
    assert (path.parent / "face.vtk").read_bytes() == model.read_bytes()
    assert "case.mrml" in (path.parent / "README.txt").read_text()


def test_the_points_are_at_their_place_in_two_colours_that_both_files_say(tmp_path):
    path = write_scene(
        tmp_path, "case", make_volume(), truth=TRUTH, predicted=PREDICTED, confidence={"n": 0.934},
        hidden=["pg"],
    )  # fmt: skip
    root, nodes = read_scene(path)
    colors, notes = {}, {}
    for node in root.iter("MarkupsFiducial"):
        file = stored_file(path, node, nodes)
        expected = {"truth": TRUTH, "prediction": PREDICTED}[node.get("name")]
        points = read_landmarks(file)
        assert list(points) == list(expected)
        for label, position in expected.items():
            np.testing.assert_array_equal(points[label], position)
        (markup,) = json.loads(file.read_text())["markups"]
        (display,) = follow(node, nodes)["display"]
        for key in ("color", "selectedColor"):
            shares = [float(share) for share in display.get(key).split()]
            assert markup["display"][key] == shares
        colors[node.get("name")] = shares
        notes[node.get("name")] = {p["label"]: p["description"] for p in markup["controlPoints"]}
    assert np.abs(np.subtract(*colors.values())).max() > 0.5
    assert notes["prediction"] == {"n": "confidence 0.93, error 1.2 mm", "pg": "", "exL": ""}
    assert notes["truth"] == {"n": "", "pg": "not visible in the scan", "exL": ""}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.int64])
def test_the_volume_is_the_files_own(tmp_path, dtype):
    volume = make_volume(dtype)
    path = write_scene(tmp_path, "case", volume)
    root, nodes = read_scene(path)
    (node,) = root.iter("Volume")
    back = read_volume(stored_file(path, node, nodes))
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    backgrounds = [follow(n, nodes)["backgroundVolume"] for n in root.iter("SliceComposite")]
    assert backgrounds == [[node]] * 3
    assert not list(root.iter("MarkupsFiducial")) and not list(root.iter("Model"))


@pytest.mark.parametrize(
    "name", ["a b & <ü> 'x' \"y\"", "50%20off", "Müller;1:2", "case.v2", "日本", "%", "a%2520b"]
)
def test_names_with_odd_characters(tmp_path, name):
    path = write_scene(tmp_path / name, name, make_volume(), truth=TRUTH)
    assert path.name == f"{name}.mrml"
    root, nodes = read_scene(path)
    (node,) = root.iter("Volume")
    assert node.get("name") == name
    assert stored_file(path, node, nodes).name == f"{name}.nii.gz"
    assert stored_file(path, node, nodes).is_file()


def test_an_older_scene_is_replaced(tmp_path, model):
    folder = tmp_path / "scene"
    write_scene(folder, "case", make_volume(), truth=TRUTH, predicted=PREDICTED, model=model)
    (folder / "notes.txt").write_text("mine")
    path = write_scene(folder, "case", make_volume(), predicted=TRUTH)
    names = {file.name for file in folder.iterdir()}
    assert names == {"case.mrml", "case.nii.gz", "prediction.mrk.json", "README.txt", "notes.txt"}
    root, nodes = read_scene(path)
    (node,) = root.iter("MarkupsFiducial")
    points = read_landmarks(stored_file(path, node, nodes))
    np.testing.assert_array_equal(points["n"], TRUTH["n"])


def test_the_same_scene_gives_the_same_bytes(tmp_path, model):
    for folder in ("a", "b"):
        write_scene(
            tmp_path / folder, "case", make_volume(), truth=TRUTH, predicted=PREDICTED, model=model
        )
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\\b", " a", "a\nb", "a\udcff"])
def test_a_name_that_no_file_can_have(tmp_path, name):
    with pytest.raises(ValueError, match="expected a name that a file can have, got"):
        write_scene(tmp_path / "scene", name, make_volume())
    assert not (tmp_path / "scene").exists()


def test_a_model_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match="expected a model ending in .vtk, .vtp, .stl, .ply, got"):
        write_scene(tmp_path, "case", make_volume(), model="face.glb")
    assert not list(tmp_path.iterdir())


def test_the_colours_of_truth_and_prediction_are_those_of_the_report():
    from fetal_jax.report import pictures

    assert (slicer_scene.TRUTH, slicer_scene.PREDICTED) == (pictures.TRUTH, pictures.PREDICTED)
