"""Corrected predictions become cases of a data set; what a person did is listed, nothing lost."""

import csv
import json
import os
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from noise_runs import read_rows

from fetal_jax.data.dataset import read_case_points, read_dataset
from fetal_jax.errors import InputError
from fetal_jax.io import files
from fetal_jax.io.volumes import write_nifti
from fetal_jax.modes import adopt
from fetal_jax.runs import found_files, scan_table
from fetal_jax.runs.predictions import make_predictions

LABELS = ["exL", "exR", "n", "prn", "sn"]
NAMES = ["c1", "c2", "c10"]
HIDDEN = ("c2", "sn")  # found not to be visible


@pytest.fixture
def found(tmp_path):
    """What predict leaves of three scans."""
    rng, folder = np.random.default_rng(0), tmp_path / "found"
    points = rng.uniform(2, 9, (3, 5, 3))
    predictions = make_predictions(points, points, np.full((3, 5), 0.8))
    chance = np.full((3, 5), 0.9)
    chance[NAMES.index(HIDDEN[0]), LABELS.index(HIDDEN[1])] = 0.6
    predictions = predictions._replace(visibility=chance, completed_mm=points)
    found_files.write_landmark_files(folder, NAMES, LABELS, predictions, min_visible=0.7)
    scans = {name: tmp_path / "scans" / f"{name}.nii.gz" for name in NAMES}
    for path in scans.values():
        write_nifti(path, rng.integers(0, 255, (12, 12, 12), dtype=np.uint8), np.eye(4))
    scan_table.write_scans(folder, scans)
    return folder


def save_in_slicer(path, changes=(), add=()):
    """As Slicer 5 saves a list: its own layout, "" of a point without a position.

    changes: label -> what of its point is another one, None: the point was deleted.
    """
    content, changes = json.loads(path.read_text()), dict(changes)
    (markup,) = content["markups"]
    points = []
    for point in markup["controlPoints"]:
        change = changes.get(point["label"], {})
        if change is not None:
            points.append({"position": ""} | point | change)
    points += [points[0] | {"id": "9", "label": label} for label in add]
    markup |= {"controlPoints": points, "measurements": []}
    markup["display"] = {"visibility": True, "opacity": 1.0, "glyphType": "Sphere3D"}
    path.write_text(json.dumps(content, indent=4))


def read_position(path, label):
    (markup,) = json.loads(path.read_text())["markups"]
    return next(p["position"] for p in markup["controlPoints"] if p["label"] == label)


def describe(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def list_changes(root, case):
    rows = read_rows(root / "adopted.csv")
    return {row["label"]: row["change"] for row in rows if row["case"] == case}


def test_each_change_is_told_apart_and_files_nobody_saved_stay(launch, found, tmp_path):
    root, c1, c2 = tmp_path / "data", found / "c1.mrk.json", found / "c2.mrk.json"
    x, y, z = read_position(c1, "exL")
    nowhere = {"position": "", "positionStatus": "undefined"}
    moved = {"position": [x + 3.0, y, z + 4.0]}
    save_in_slicer(c1, {"exL": moved, "exR": nowhere, "prn": None})
    save_in_slicer(c2, {"sn": {"position": [1.0, -2.0, 3.0], "positionStatus": "defined"}})
    done = launch("--mode=adopt", f"--from={found}", f"--into={root}")
    assert done.status == 0, done.err
    assert "c1: 1 moved (exL 5.0 mm), 1 undefined (exR), 1 removed (prn), 2 confirmed" in done.out
    assert "c2: 1 defined (sn), 4 confirmed" in done.out
    assert f"2 cases taken into {root}" in done.out
    assert "1 files that nobody saved are left out" in done.out
    assert list_changes(root, "c1") == {
        "exL": "moved", "exR": "undefined", "n": "confirmed", "prn": "removed", "sn": "confirmed"
    }  # fmt: skip
    row = read_rows(root / "adopted.csv")[0]
    assert float(row["moved_mm"]) == pytest.approx(5.0, abs=1e-3)
    assert float(row["x"]) == pytest.approx(-x - 3.0, abs=1e-3)  # LPS to RAS
    assert (root / "landmarks" / "c1.mrk.json").read_bytes() == c1.read_bytes()
    dataset = read_dataset(root)
    assert [case.name for case in dataset.cases] == ["c1", "c2"]
    points, visible, judged = read_case_points(dataset.cases[0], LABELS)
    assert np.isfinite(points).all(axis=1).tolist() == [True, False, True, False, True]
    assert judged.tolist() == [True, True, True, False, True] and visible.sum() == 3
    np.testing.assert_allclose(points[0], [-x - 3.0, -y, z + 4.0], atol=1e-9)
    assert not (root / ".lock").exists()


def test_a_file_that_was_saved_as_it_was_is_confirmed_and_an_undefined_point_too(found, tmp_path):
    save_in_slicer(found / "c2.mrk.json")
    adopt.run_adopt(found, tmp_path / "data")
    assert set(list_changes(tmp_path / "data", "c2").values()) == {"confirmed"}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"changes": {"n": {"label": "nn"}}}, ["got nn as well, and lacks n", "rename"]),
        ({"add": ["F-1"]}, ["got F-1 as well: rename or delete"]),
        ({"add": ["exL"]}, ["expected each label once"]),
        ({"changes": {"n": {"position": [1.0, 2.0]}}}, ["three finite numbers"]),
    ],
)
def test_a_label_that_was_not_predicted_leaves_its_file_out(found, tmp_path, settings, parts):
    save_in_slicer(found / "c1.mrk.json", **settings)
    save_in_slicer(found / "c10.mrk.json")
    with pytest.raises(InputError) as caught:
        adopt.run_adopt(found, tmp_path / "data")
    (line,) = caught.value.problems
    assert line.startswith(f"{found}/c1.mrk.json: ") and all(part in line for part in parts)
    assert sorted(p.name for p in (tmp_path / "data" / "landmarks").iterdir()) == ["c10.mrk.json"]


def test_what_is_there_is_never_overwritten_and_the_same_is_no_error(found, tmp_path, capsys):
    root = tmp_path / "data"
    save_in_slicer(found / "c1.mrk.json")
    adopt.run_adopt(found, root)
    before = describe(root)
    capsys.readouterr()
    adopt.run_adopt(found, root)
    assert "0 cases taken" in (said := capsys.readouterr().out) and "1 are there already" in said
    assert describe(root) == before
    save_in_slicer(found / "c1.mrk.json", {"n": None})  # once more
    with pytest.raises(InputError, match="c1.mrk.json: expected no landmarks of c1 in the"):
        adopt.run_adopt(found, root)
    assert describe(root) == before
    adopt.run_adopt(found, root, "anna")
    after = describe(root)
    reading = Path("landmarks/c1.anna.mrk.json")
    assert after[reading] == (found / "c1.mrk.json").read_bytes()
    assert {name for name in after if after[name] != before.get(name)} == {
        reading,
        Path("adopted.csv"),
    }
    assert [one.annotator for one in read_dataset(root).cases[0].readings] == ["anna"]


def test_rows_are_appended_to_a_table_of_cases_as_it_is(found, tmp_path, capsys):
    root = tmp_path / "data"
    root.mkdir()
    text = '\ufeffCase,subject,notes,split\r\n"c2",s9,"a, b",\r\nold,s1,,test'
    (root / "cases.csv").write_bytes(text.encode())
    for name in NAMES:
        save_in_slicer(found / f"{name}.mrk.json")
    adopt.run_adopt(found, root)
    added = "\r\nc1,c1,,train\r\nc10,c10,,train\r\n"
    assert (root / "cases.csv").read_bytes() == (text + added).encode()
    assert "2 rows added (c1, c10)" in capsys.readouterr().out
    adopt.run_adopt(found, root)
    assert (root / "cases.csv").read_bytes() == (text + added).encode()


def test_a_header_comes_with_its_voxels(found, tmp_path):
    header, voxels = tmp_path / "scans" / "c1.mhd", tmp_path / "scans" / "raw" / "one.raw"
    voxels.parent.mkdir()
    voxels.write_bytes(bytes(range(256)) * 4)
    header.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 8 8 16\nElementType = MET_UCHAR\n"
        "ElementSpacing = 1 1 1\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "ElementDataFile = raw/one.raw\n"
    )
    save_in_slicer(found / "c1.mrk.json")
    root = tmp_path / "data"
    adopt.run_adopt(found, root, patterns=[str(header)])
    assert (root / "volumes" / "raw" / "one.raw").read_bytes() == voxels.read_bytes()
    assert (root / "volumes" / "c1.mhd").read_bytes() == header.read_bytes()


def test_a_scan_under_another_name_and_one_that_is_gone(found, tmp_path):
    for name in NAMES:
        save_in_slicer(found / f"{name}.mrk.json")
    scans, root = tmp_path / "scans", tmp_path / "data"
    (scans / "c2.nii.gz").write_bytes((scans / "c1.nii.gz").read_bytes())
    (scans / "c10.nii.gz").unlink()
    with pytest.raises(InputError) as caught:
        adopt.run_adopt(found, root)
    twin, gone = caught.value.problems
    assert twin.startswith(f"{scans}/c2.nii.gz: ") and "got that of c1" in twin
    assert gone.startswith(f"{found}/c10.mrk.json: expected its volume") and "--volumes" in gone
    assert [p.name for p in (root / "landmarks").iterdir()] == ["c1.mrk.json"]
    (root / "volumes" / "c10.nii.gz").write_bytes(b"of somebody else")
    (scans / "c10.nii.gz").write_bytes(b"another one")
    with pytest.raises(InputError, match="expected no other volume of c10, got"):
        adopt.run_adopt(found, root)
    assert (root / "volumes" / "c10.nii.gz").read_bytes() == b"of somebody else"


def test_stopped_at_any_file_it_goes_on_to_the_same_data_set(found, tmp_path, monkeypatch):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "cases.csv").write_text("case,split\n")
    for name in NAMES:
        save_in_slicer(found / f"{name}.mrk.json", {"n": {"position": [1.0, 1.0, 1.0]}})
    whole = copytree(tmp_path / "start", tmp_path / "whole")
    adopt.run_adopt(found, whole)
    replace, count = os.replace, [0]

    def stop(source, target):
        if not count[0]:
            raise KeyboardInterrupt
        count[0] -= 1
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", stop)
    for written in range(8):  # three volumes, two tables, three landmark files
        root = copytree(tmp_path / "start", tmp_path / f"stopped{written}")
        count[0] = written
        with pytest.raises(KeyboardInterrupt):
            adopt.run_adopt(found, root)
        count[0] = 99
        assert len(list((root).glob("landmarks/*"))) == max(0, written - 5)
        adopt.run_adopt(found, root)
        assert describe(root) == describe(whole)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["--mode=adopt: expected --from"]),
        (["--from={0}/found"], ["--mode=adopt: expected --into"]),
        (["--from={0}/nowhere", "--into={0}/data"], ["nowhere", "no such folder"]),
        (["--from={0}/scans", "--into={0}/data"], ["scans", "with predicted.csv, got none"]),
        (["--from={0}/found", "--into={0}/data", "--annotator=a.b"], ["--annotator", "'a.b'"]),
    ],
)
def test_a_bad_command_is_one_line(refuse, found, tmp_path, argv, parts):
    line = refuse("--mode=adopt", *(argument.replace("{0}", str(tmp_path)) for argument in argv))
    assert all(part in line for part in parts)
    assert not (tmp_path / "data").exists()


def test_another_table_of_that_name_is_refused_before_work(found, tmp_path):
    save_in_slicer(found / "c1.mrk.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "adopted.csv").write_text("child,parents\n")
    with pytest.raises(InputError, match="adopted.csv: expected"):
        adopt.run_adopt(found, tmp_path / "data")
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["adopted.csv"]


def test_a_folder_of_before_the_status_was_kept(found, tmp_path):
    """A chance below a half then says that a point was undefined."""
    table = found / "predicted.csv"
    with table.open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)]
    chance = rows[0].index("chance_visible")
    for row in rows:
        row[chance] = "0.4" if row[0] == "c2.mrk.json" and row[2] == "sn" else row[chance]
    table.write_text("".join(",".join(row) + "\n" for row in rows))
    written = found_files.read_predicted(found)
    assert written["c2.mrk.json"].undefined == {"sn"} and not written["c1.mrk.json"].undefined
    points = np.ones((1, 5, 3))
    predictions = make_predictions(points, points, np.full((1, 5), 0.8))
    found_files.write_landmark_files(found, ["c3"], LABELS, predictions, min_visible=0.7)
    again = found_files.read_predicted(found)
    assert again["c2.mrk.json"].undefined == {"sn"} and len(again) == 4
