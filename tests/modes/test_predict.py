"""New scans: files in, landmark files out, in each scan's own world."""

import itertools
import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from noise_runs import LABELS, read_rows

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.modes import predict
from fetal_jax.runs.folder import read_json, write_json


@pytest.fixture(scope="module")
def fold(noise_crossval):
    return noise_crossval / "fold1"


# ---- which files ----


def test_files_folders_and_globs_each_once_in_order(tmp_path):
    for name in ("b.nii.gz", "a.nii", "c.nrrd", "notes.txt", "scan[1].nii"):
        (tmp_path / name).write_bytes(b"")
    patterns = [str(tmp_path / "c.nrrd"), str(tmp_path / "*.nii*"), str(tmp_path)]
    found = [path.name for path in predict.find_volumes(patterns)]
    assert found == ["c.nrrd", "a.nii", "b.nii.gz", "scan[1].nii"]
    brackets = predict.find_volumes([str(tmp_path / "scan[1].nii")])
    assert [path.name for path in brackets] == ["scan[1].nii"]


def test_patterns_that_name_nothing_are_listed_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        predict.find_volumes([f"{tmp_path}/no*.nii", str(tmp_path)])
    assert caught.value.problems == [
        f"--volumes={tmp_path}/no*.nii: expected volumes, got no such file",
        f"--volumes={tmp_path}: expected volumes, got a folder with none",
    ]


def test_two_inputs_of_one_name_are_refused(fold, noise_root, tmp_path):
    shutil.copy(noise_root / "volumes" / "c1.nii.gz", tmp_path)
    given = [str(noise_root / "volumes"), str(tmp_path)]
    with pytest.raises(InputError, match=f"{tmp_path}/c1.nii.gz: .* both would write c1"):
        predict.run_predict(fold, given, tmp_path / "found", "mrk.json")
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        pytest.param([], ["--volumes: expected files"], id="no volumes"),
        pytest.param(["--volumes=no*.nii"], ["--volumes=no*.nii", "no such file"], id="none found"),
        pytest.param(["--volumes={0}/cases.csv"], ["cases.csv", "ends in .nii"], id="no volume"),
        pytest.param(["--format=csv", "--volumes={0}/volumes"], ["csv", "fcsv"], id="format"),
        pytest.param(["--workdir=no", "--volumes={0}/volumes"], ["no/config.json"], id="no run"),
    ],
)
def test_a_bad_prediction_is_one_line(refuse, fold, noise_root, tmp_path, argv, parts):
    argv = [argument.replace("{0}", str(noise_root)) for argument in argv]
    common = ["--mode=predict", f"--workdir={fold}", f"--output={tmp_path}"]
    line = refuse(*common, *argv)
    for part in parts:
        assert part in line
    assert not list(tmp_path.iterdir())


def test_it_does_not_wait_for_what_only_judges_and_reports():
    """Which takes longer to import than a scan to predict."""
    asked = "import sys, fetal_jax.modes.predict; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"jax", "scipy.ndimage"} <= loaded
    assert not loaded & {"scipy.stats", "scipy.optimize", "matplotlib", "tensorboardX"}


# ---- what is found ----


def test_a_folder_of_volumes_is_found_as_the_evaluation_found_it(fold, noise_root, tmp_path):
    """In a batch of another size."""
    predict.run_predict(fold, [str(noise_root / "volumes")], tmp_path, "mrk.json")
    names = sorted(path.name for path in tmp_path.iterdir())
    # no measurements: no face
    tables = ["predicted.csv", "review.csv", "slicer", "volumes.csv"]
    assert names == [*sorted(f"c{i}.mrk.json" for i in range(11)), *tables]
    for path in (fold / "predictions").glob("*.mrk.json"):
        found, expected = read_landmarks(tmp_path / path.name), read_landmarks(path)
        for label in LABELS:
            np.testing.assert_allclose(found[label], expected[label], rtol=0, atol=1e-3)


def test_48_ways_to_store_a_scan_and_one_answer(launch, fold, noise_root, tmp_path):
    """A bad file among them is one line, and costs no good one."""
    case = next((fold / "predictions").glob("*.mrk.json")).name.removesuffix(".mrk.json")
    expected = read_landmarks(fold / "predictions" / f"{case}.mrk.json")
    image = nib.load(noise_root / "volumes" / f"{case}.nii.gz")
    scans, found = tmp_path / "scans", tmp_path / "found"
    scans.mkdir()
    ways = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    for i, (order, flips) in enumerate(ways):
        turned = image.as_reoriented(np.stack([order, flips], axis=1))
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, 1)
        nib.save(turned, scans / f"scan{i}.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no volume")
    flags = ["--mode=predict", f"--workdir={fold}", f"--volumes={scans}/*.nii.gz"]
    done = launch(*flags, f"--output={found}", "--format=fcsv")
    assert done.status == 1 and done.err.count("\n") == 1
    assert done.err.startswith(f"error: {scans}/bad.nii.gz: ")
    assert len(list(found.glob("*.fcsv"))) == 48
    for i in range(48):
        points = read_landmarks(found / f"scan{i}.fcsv")
        for label in LABELS:
            np.testing.assert_allclose(points[label], expected[label], atol=0.01)


def test_what_was_found_stays_where_a_later_scan_fails(
    fold, noise_root, tmp_path, monkeypatch, capsys
):
    """As by a lack of memory; the same command then ends with the same files and lines."""
    given, search = [str(noise_root / "volumes")], predict.search_scan

    def run(name):
        predict.run_predict(fold, given, tmp_path / name / "found", "mrk.json")

    def fail(scan, *models):
        if scan.path.name == "c4.nii.gz":
            raise RuntimeError("no memory")
        return search(scan, *models)

    run("whole")
    lines = capsys.readouterr().out.replace("whole", "cut").splitlines()
    monkeypatch.setattr(predict, "search_scan", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        run("cut")
    before = ["c0", "c1", "c10", "c2", "c3"]
    assert capsys.readouterr().out.splitlines() == lines[: 1 + len(before)]
    names = sorted(path.name for path in (tmp_path / "cut" / "found").iterdir())
    assert names == [*(f"{name}.mrk.json" for name in before), "predicted.csv", "volumes.csv"]
    monkeypatch.setattr(predict, "search_scan", search)
    run("cut")
    assert capsys.readouterr().out.splitlines() == lines
    files = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(files) > 11 + 3
    for path in files:
        other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()


def test_a_scan_that_the_grid_cuts_is_said(fold, tmp_path, capsys):
    """The grid is 24 mm wide."""
    rng = np.random.default_rng(0)
    for name, size in (("long", 25), ("short", 24)):
        voxels = rng.integers(0, 255, (size, 12, 12), dtype=np.uint8)
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header.set_xyzt_units("mm")
        image.set_sform(np.eye(4), 1)
        image.set_qform(np.eye(4), 1)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    predict.run_predict(fold, [str(tmp_path)], tmp_path / "found", "mrk.json")
    warnings = [row for row in capsys.readouterr().out.splitlines() if row.startswith("warning")]
    assert warnings == [
        f"warning: {tmp_path}/long.nii.gz: 25 mm long, more than the grid's 24 mm: what lies "
        "outside is not searched"
    ]


def test_what_stands_there_in_the_other_format_is_somebody_s(fold, noise_root, tmp_path, capsys):
    """As in a data set's own folder: two files of one case are none that can be read."""
    root = shutil.copytree(noise_root, tmp_path / "cohort")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    predict.run_predict(fold, [str(root / "volumes")], root / "landmarks", "fcsv")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 11
    assert all("c" in line and ".mrk.json was not written by this program" in line for line in said)


def test_a_face_is_measured(fold, noise_root, tmp_path, capsys):
    """The same run under labels of a face: the width of the mouth, or why there is none."""
    run = shutil.copytree(fold, tmp_path / "run")
    text = json.dumps(read_json(run / "data.json"))
    for label, other in (("L", "chL"), ("R", "chR"), ("nose", "n")):
        text = text.replace(f'"{label}"', f'"{other}"')
    write_json(run / "data.json", json.loads(text))
    output = tmp_path / "found"
    predict.run_predict(run, [str(noise_root / "volumes")], output, "mrk.json")
    rows = read_rows(output / "measurements.csv")
    assert [row["measurement"] for row in rows] == ["mouth_width"] * 11
    # a scan alone, and what somebody corrected
    theirs = output / "c3.mrk.json"
    theirs.write_text(theirs.read_text().replace("defined", "undefined", 1))
    before = theirs.read_bytes()
    volumes = [str(noise_root / "volumes" / f"c{i}.nii.gz") for i in (3, 4)]
    predict.run_predict(run, volumes, output, "mrk.json")
    assert theirs.read_bytes() == before
    said = capsys.readouterr().out
    assert f"note: {theirs} was not written by this program, or changed since" in said
    again = read_rows(output / "measurements.csv")
    assert sorted(row["case"] for row in again) == sorted(row["case"] for row in rows)
    predict.run_predict(run, volumes, output, "mrk.json", overwrite=True)
    assert theirs.read_bytes() != before
    for row in rows:
        points = read_landmarks(output / f"{row['case']}.mrk.json")
        width = np.linalg.norm(points["chL"] - points["chR"])
        assert bool(row["note"]) != bool(row["value"])
        assert row["note"] or float(row["value"]) == pytest.approx(width, abs=1e-3)
