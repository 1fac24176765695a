"""A scene for 3D Slicer: a volume, its true and predicted landmarks, the surface of the face.

The `.mrml` file holds only what shows the data at its place and in its colour; Slicer has defaults
for the rest. Node and attribute names are those of scenes that Slicer 5 saves.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fetal_jax.io.files import LANDMARK_SUFFIXES, FilePath, split_suffix, write_atomically
from fetal_jax.io.markups import write_mrk_json
from fetal_jax.io.mrk_json import parse_color
from fetal_jax.io.volumes import Volume, write_nifti

# the oldest version with these nodes: newer ones read the file without a warning
VERSION = "Slicer 5.0.0"
TRUTH, PREDICTED, SKIN = "#2de1c2", "#ff9f1c", "#e9c6ae"
SKIN_OPACITY = 0.7  # shows points on the true skin, up to 2 mm beneath the smoothed surface
TRUTH_FILE, PREDICTED_FILE, MODEL_STEM = "truth.mrk.json", "prediction.mrk.json", "face"
MODEL_SUFFIXES = (".vtk", ".vtp", ".stl", ".ply")
# no hidden file, no path, no character that XML forbids
FILE_NAME = re.compile(r"(?![.\s])[^/\\\x00-\x1f\ud800-\udfff\ufffe\uffff]+")
README = (
    "In 3D Slicer 5: File > Add Data, or drag {name}.mrml into the window.\n"
    "Truth is turquoise, the prediction orange.\n"
)
# Slicer's own colour table, present in every session
GREY = "vtkMRMLColorTableNodeGrey"
# what Slicer escapes in a file's name: it decodes only these, % last
ESCAPES = {"%": "%25", " ": "%20", "'": "%27", ">": "%3E", "<": "%3C", '"': "%22"}


def write_scene(
    folder: FilePath,
    name: str,
    volume: Volume,
    *,
    truth: Mapping[str, np.ndarray] | None = None,
    predicted: Mapping[str, np.ndarray] | None = None,
    confidence: Mapping[str, float] | None = None,
    radius_mm: Mapping[str, float] | None = None,
    hidden: Collection[str] = (),
    model: FilePath | None = None,
) -> Path:
    """Write `NAME.mrml` and the files that it shows; an older scene in the folder is replaced.

    Args:
      folder: of this scene alone.
      name: of the case, which names the files.
      volume: as read from the case's file, not resampled; written as `NAME.nii.gz`.
      truth, predicted: label -> [3] RAS+ mm, NaN where undefined; None for no such list.
      confidence: label -> probability of the predicted point; shown in the point's description,
        with its distance from the truth.
      radius_mm: label -> that of the predicted point's region; shown there, too.
      hidden: labels of true points that cannot be seen in the scan; their descriptions say so.
      model: a surface file that states whether it is LPS or RAS, as `write_surface` writes; copied.

    Returns:
      The path of `NAME.mrml`, which is written last.

    Raises:
      ValueError: a name that cannot be that of a file, points that `write_mrk_json` refuses, or a
        model of another kind.
    """
    folder = Path(folder)
    if not FILE_NAME.fullmatch(name):
        raise ValueError(f"expected a name that a file can have, got {name!r}")
    model_suffix = None if model is None else split_suffix(model, MODEL_SUFFIXES)[1]
    if model_suffix == "":
        raise ValueError(f"expected a model ending in {', '.join(MODEL_SUFFIXES)}, got {model!r}")
    scene = ElementTree.Element("MRML", version=VERSION, userTags="")
    written = set()
    if truth is not None:
        notes = {label: "not visible in the scan" for label in hidden}
        write_mrk_json(folder / TRUTH_FILE, truth, descriptions=notes, color=TRUTH)
        _add_points(scene, 1, "truth", TRUTH_FILE, TRUTH)
        written.add(TRUTH_FILE)
    if predicted is not None:
        notes = _describe(predicted, truth or {}, confidence or {}, radius_mm or {})
        write_mrk_json(folder / PREDICTED_FILE, predicted, descriptions=notes, color=PREDICTED)
        _add_points(scene, 2, "prediction", PREDICTED_FILE, PREDICTED)
        written.add(PREDICTED_FILE)
    voxels = volume.voxels
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize == 8:  # which few programs read
        voxels = voxels.astype(np.float64)
    write_nifti(folder / f"{name}.nii.gz", voxels, volume.affine)
    _add_volume(scene, name, f"{name}.nii.gz")
    if model is not None:
        file = MODEL_STEM + model_suffix
        write_atomically(folder / file, Path(model).read_bytes())
        _add_model(scene, file)
        written.add(file)
    write_atomically(folder / "README.txt", README.format(name=name).encode())
    path = folder / f"{name}.mrml"
    write_atomically(path, _format(scene))
    models = {MODEL_STEM + suffix for suffix in MODEL_SUFFIXES}
    for old in ({TRUTH_FILE, PREDICTED_FILE} | models) - written:  # files of an older scene
        (folder / old).unlink(missing_ok=True)
    return path


def _describe(
    predicted: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    confidence: Mapping[str, float],
    radius_mm: Mapping[str, float],
) -> dict[str, str]:
    """Label -> "confidence 0.93, radius 3.1 mm, error 1.2 mm", as far as they are known."""
    notes = {}
    for label, point in predicted.items():
        error_mm = np.linalg.norm(np.subtract(point, truth.get(label, np.nan)))
        parts = []
        if label in confidence and np.isfinite(confidence[label]):
            parts.append(f"confidence {confidence[label]:.2f}")
        if np.isfinite(radius_mm.get(label, np.nan)):
            parts.append(f"radius {radius_mm[label]:.1f} mm")
        if np.isfinite(error_mm):
            parts.append(f"error {error_mm:.1f} mm")
        notes[label] = ", ".join(parts)
    return notes


def _add_volume(scene: ElementTree.Element, name: str, file: str) -> None:
    display, storage = "vtkMRMLScalarVolumeDisplayNode1", "vtkMRMLVolumeArchetypeStorageNode1"
    _add(
        scene, "VolumeDisplay", display, "VolumeDisplay", hideFromEditors="true",
        colorNodeID=GREY, interpolate="1", autoWindowLevel="1",
    )  # fmt: skip
    _add_storage(scene, "VolumeArchetypeStorage", storage, file)
    _add(
        scene, "Volume", "vtkMRMLScalarVolumeNode1", name, hideFromEditors="false",
        references=f"display:{display};storage:{storage};",
    )  # fmt: skip
    for view in ("Red", "Green", "Yellow"):  # the three slice views, empty otherwise
        _add(
            scene, "SliceComposite", f"vtkMRMLSliceCompositeNode{view}", "SliceComposite",
            hideFromEditors="true", singletonTag=view, layoutName=view,
            references="backgroundVolume:vtkMRMLScalarVolumeNode1;",
        )  # fmt: skip


def format_link_scene(name: str, volume: str, points: str) -> bytes:
    """A scene that shows a volume and its landmarks where they lie: saved, they are saved there.

    Args:
      name: of the case.
      volume, points: paths of the files from the scene's folder, with / between folders, or whole.
    """
    scene = ElementTree.Element("MRML", version=VERSION, userTags="")
    _add_points(scene, 1, split_suffix(points, LANDMARK_SUFFIXES)[0], points, PREDICTED)
    _add_volume(scene, name, volume)
    return _format(scene)


def _format(scene: ElementTree.Element) -> bytes:
    ElementTree.indent(scene)
    return ElementTree.tostring(scene, encoding="UTF-8", xml_declaration=True) + b"\n"


def _add_points(scene: ElementTree.Element, number: int, name: str, file: str, color: str) -> None:
    display = f"vtkMRMLMarkupsFiducialDisplayNode{number}"
    kind = "MarkupsFiducialStorage" if file.endswith(".fcsv") else "MarkupsJsonStorage"
    storage = f"vtkMRML{kind}Node{number}"
    rgb = _format_color(color)
    # the scene's colours override those in the points' file
    _add(
        scene, "MarkupsFiducialDisplay", display, "MarkupsDisplay", hideFromEditors="true",
        color=rgb, selectedColor=rgb, glyphType="Sphere3D",
    )  # fmt: skip
    _add_storage(scene, kind, storage, file, coordinateSystem="LPS")
    _add(
        scene, "MarkupsFiducial", f"vtkMRMLMarkupsFiducialNode{number}", name,
        hideFromEditors="false", references=f"display:{display};storage:{storage};",
    )  # fmt: skip


def _add_model(scene: ElementTree.Element, file: str) -> None:
    display, storage = "vtkMRMLModelDisplayNode1", "vtkMRMLModelStorageNode1"
    _add(
        scene, "ModelDisplay", display, "ModelDisplay", hideFromEditors="true",
        color=_format_color(SKIN), opacity=str(SKIN_OPACITY), visibility="true",
    )  # fmt: skip
    _add_storage(scene, "ModelStorage", storage, file, coordinateSystem="LPS")
    _add(
        scene, "Model", "vtkMRMLModelNode1", MODEL_STEM, hideFromEditors="false",
        references=f"display:{display};storage:{storage};",
    )  # fmt: skip


def _add_storage(
    scene: ElementTree.Element, tag: str, node_id: str, file: str, **attributes: str
) -> None:
    escaped = "".join(ESCAPES.get(letter, letter) for letter in file)
    _add(scene, tag, node_id, tag, hideFromEditors="true", fileName=escaped, **attributes)


def _add(scene: ElementTree.Element, tag: str, node_id: str, name: str, **attributes: str) -> None:
    ElementTree.SubElement(scene, tag, {"id": node_id, "name": name, **attributes})


def _format_color(color: str) -> str:
    return " ".join(f"{share:g}" for share in parse_color(color))
