"""Scenes that open a scan and its landmark file where they lie."""

from xml.etree import ElementTree

import pytest

from fetal_jax.runs.review_scenes import write_scenes

SUFFIXES = {".mrk.json": "MarkupsJsonStorage", ".fcsv": "MarkupsFiducialStorage"}


def list_files(path):
    """Tag of a storage node -> the file it names, from the scene's folder, as Slicer decodes it."""
    tree = ElementTree.parse(path)
    names = {node.tag: node.get("fileName") for node in tree.iter() if node.get("fileName")}
    return {
        tag: (path.parent / name.replace("%20", " ").replace("%25", "%")).resolve()
        for tag, name in names.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_both_files_are_named_where_they_lie(tmp_path, suffix):
    output, scans = tmp_path / "found", tmp_path / "my scans"
    scans.mkdir()
    files = {"c 1%": (scans / "c 1%.nrrd", output / f"c 1%{suffix}")}
    assert write_scenes(output, files, ["c 1%"]) == []
    path = output / "slicer" / "c 1%.mrml"
    found = list_files(path)
    volume, points = files["c 1%"]
    assert found == {SUFFIXES[suffix]: points, "VolumeArchetypeStorage": volume}
    assert {n.tag for n in ElementTree.parse(path).getroot()} >= {"Volume", "MarkupsFiducial"}
    assert [p.name for p in output.iterdir()] == ["slicer"]


def test_through_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    output = tmp_path / "found"
    output.symlink_to(tmp_path / "disk" / "deep")
    volume = tmp_path / "c.nii"
    volume.symlink_to("annex/KEY")  # its own name says what it is
    write_scenes(output, {"c": (volume, output / "c.mrk.json")}, ["c"])
    text = (output / "slicer" / "c.mrml").read_text()
    assert 'fileName="../../../c.nii"' in text and 'fileName="../c.mrk.json"' in text


def test_scenes_go_with_what_was_wrong_but_those_that_somebody_saved_stay(tmp_path):
    files = {name: (tmp_path / f"{name}.nii", tmp_path / f"{name}.mrk.json") for name in "abc"}
    write_scenes(tmp_path, files, "ab")
    saved = tmp_path / "slicer" / "a.mrml"
    saved.write_text("as Slicer saved it")
    assert write_scenes(tmp_path, files, "bc") == [saved]
    names = sorted(p.name for p in (tmp_path / "slicer").iterdir())
    assert names == ["a.mrml", "b.mrml", "c.mrml"]
    assert write_scenes(tmp_path, files, "ac") == [saved]
    assert sorted(p.name[0] for p in (tmp_path / "slicer").iterdir()) == ["a", "c"]
    assert saved.read_text() == "as Slicer saved it"
    assert write_scenes(tmp_path, files, "ac", overwrite=True) == []
    assert "MRML" in saved.read_text()
