"""The exported file finds what --mode=predict finds, for any volume, with nothing of ours."""

import contextlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import nibabel as nib
import numpy as np
import pytest
from noise_runs import LABELS, read_rows
from scans import POSED

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.modes import export, predict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(noise_crossval, tmp_path_factory):
    """(file, what was printed, the function of its printed lines) of an ordinary run."""
    path, printed = tmp_path_factory.mktemp("export") / "model.jax_export", io.StringIO()
    with contextlib.redirect_stdout(printed):
        export.run_export(noise_crossval / "fold1", path)
    return path, printed.getvalue(), load_function(path)


def load_function(path):
    return jax.export.deserialize(bytearray(path.read_bytes())).call


def find_in_file(find, scan):
    """As the printed lines do: (points [L, 3], confidence [L])."""
    image = nib.load(scan)
    found = find(np.float32(image.dataobj), np.float32(image.affine))
    assert sorted(found) == sorted(LABELS)
    return tuple(
        np.stack([found[label][key] for label in LABELS]) for key in ("position_mm", "confidence")
    )


def predict_files(workdir, scans, output):
    """The points [L, 3] of each scan, in order."""
    predict.run_predict(workdir, [str(scans)], output, "mrk.json")
    read = [read_landmarks(output / f"{i}.mrk.json") for i in range(len(list(scans.iterdir())))]
    return [np.stack([points[label] for label in LABELS]) for points in read]


def test_one_file_agrees_with_predict_for_every_size_and_affine(
    exported, noise_crossval, scans, tmp_path
):
    expected = predict_files(noise_crossval / "fold1", scans, tmp_path)
    for i, name in enumerate(POSED):
        points, confidence = find_in_file(exported[2], scans / f"{i}.nii.gz")
        np.testing.assert_allclose(points, expected[i], rtol=0, atol=5e-4, err_msg=name)
        text = (tmp_path / f"{i}.mrk.json").read_text()
        for share in confidence:
            assert any(f"confidence {share + e:.3f}" in text for e in (-5e-4, 0, 5e-4)), name


def test_the_printed_lines_run_without_the_project(exported, scans, tmp_path):
    path, printed, find = exported
    assert str(path) in printed.splitlines()[0] and "cpu, cuda, tpu" in printed.splitlines()[0]
    shutil.copy(scans / "2.nii.gz", tmp_path / "scan.nii.gz")
    hide = "import sys\nfor name in ('fetal_jax', 'flax', 'orbax'): sys.modules[name] = None\n"
    lines = hide + printed.split("\n\n", 1)[1]
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    points, confidence = find_in_file(find, tmp_path / "scan.nii.gz")
    for label, point, share in zip(LABELS, points, confidence, strict=True):
        line = next(line for line in done.stdout.splitlines() if line.startswith(label))
        values = np.array(line[len(label) :].replace("[", " ").replace("]", " ").split(), float)
        np.testing.assert_allclose(values, [*point, share], rtol=1e-5, atol=1e-5)


def test_the_file_says_nothing_of_the_machine_and_is_the_same_each_time(
    exported, noise_crossval, tmp_path
):
    def export_from_elsewhere():
        export.run_export(noise_crossval / "fold1", tmp_path / "again.jax_export")

    export_from_elsewhere()
    content = (tmp_path / "again.jax_export").read_bytes()
    assert content == exported[0].read_bytes()
    assert str(ROOT).encode() not in content and b".py" not in content


def test_the_readme_has_the_printed_lines():
    assert (
        export.USAGE.format(path="runs/fine/model.jax_export") in (ROOT / "README.md").read_text()
    )


def test_a_cross_validation_is_the_mean_of_its_models(noise_crossval, scans, tmp_path):
    path = tmp_path / "deeper" / "all.jax_export"
    export.run_export(noise_crossval, path)
    expected = predict_files(noise_crossval, scans, tmp_path / "found")
    single = predict_files(noise_crossval / "fold1", scans, tmp_path / "single")
    apart = [np.abs(a - b).max() for a, b in zip(single, expected, strict=True)]
    telling = int(np.argmax(apart))  # the scan on which the models differ most
    close_mm = 5e-4
    assert apart[telling] > 100 * close_mm, apart
    find, scan = load_function(path), scans / f"{telling}.nii.gz"
    found, _ = find_in_file(find, scan)
    np.testing.assert_allclose(found, expected[telling], atol=close_mm)
    image = nib.load(scan)
    said = find(np.float32(image.dataobj), np.float32(image.affine))
    rows = read_rows(tmp_path / "found" / "predicted.csv")
    for row in rows:
        if row["file"] == f"{telling}.mrk.json":
            radius_mm = float(said[row["label"]]["radius_mm"])
            assert radius_mm == pytest.approx(float(row["radius_mm"]), rel=1e-3)


@pytest.mark.parametrize("spoil", ["no contrast", "not a number", "infinite", "singular"])
def test_what_predict_would_refuse_is_nan(exported, scans, spoil):
    _, _, find = exported
    image = nib.load(scans / "0.nii.gz")
    voxels, affine = np.float32(image.dataobj), np.float32(image.affine)
    if spoil == "singular":
        affine[:3, 0] = affine[:3, 1]
    else:
        place = ... if spoil == "no contrast" else (0, 0, 0)
        voxels[place] = {"not a number": np.nan, "infinite": np.inf}.get(spoil, 7.0)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(find(voxels, affine)))


def test_bad_input_is_one_line(noise_crossval, tmp_path):
    run = noise_crossval / "fold1"
    with pytest.raises(InputError, match="expected a file to write, got a folder"):
        export.run_export(run, tmp_path)
    with pytest.raises(InputError, match="nowhere.*expected a file of a run"):
        export.run_export(tmp_path / "nowhere", tmp_path / "model")
    for name in ("config.json", "data.json"):
        shutil.copy(run / name, tmp_path)
    with pytest.raises(InputError, match="expected the checkpoints of a run"):
        export.run_export(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_file_that_is_there_is_not_replaced(tmp_path):
    """Before any run is opened: a table of somebody's, where an export should go."""
    table = tmp_path / "cases.csv"
    table.write_text("case\n")
    with pytest.raises(InputError, match="cases.csv: expected a new file, or one that ends in"):
        export.run_export(tmp_path / "run", table)
    assert table.read_text() == "case\n"
