"""The ONNX file finds what --mode=predict finds, for any volume, with no JAX."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
import onnx
import pytest
from noise_runs import LABELS
from onnx_files import open_onnx, run_onnx
from scans import POSED, SCANS, make_noise

from configs import emd, rpn
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.modes import export, predict
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.config_table import check_config
from fetal_jax.runs.finished import OpenedModels

ROOT = Path(__file__).parents[2]
CLOSE_MM = 5e-4


@pytest.fixture(scope="module")
def exported(noise_crossval, tmp_path_factory):
    """(file, what was printed, a session) of an ordinary run."""
    path, printed = tmp_path_factory.mktemp("export") / "model.onnx", io.StringIO()
    with contextlib.redirect_stdout(printed):
        export.run_export(noise_crossval / "fold1", path, "onnx")
    return path, printed.getvalue(), open_onnx(path.read_bytes())


def read_scan(path):
    image = nib.load(path)
    return {"voxels": np.float32(image.dataobj), "affine": np.float32(image.affine)}


def predict_files(workdir, scans, output):
    """The points [L, 3] of each scan, in order."""
    with contextlib.redirect_stdout(io.StringIO()):
        predict.run_predict(workdir, [str(scans)], output, "mrk.json")
    read = [read_landmarks(output / f"{i}.mrk.json") for i in range(len(POSED))]
    return [np.stack([points[label] for label in LABELS]) for points in read]


def test_one_file_agrees_with_predict_for_every_size_and_affine(
    exported, noise_crossval, scans, tmp_path
):
    expected = predict_files(noise_crossval / "fold1", scans, tmp_path)
    for i, name in enumerate(POSED):
        found = run_onnx(exported[2], read_scan(scans / f"{i}.nii.gz"))
        np.testing.assert_allclose(
            found["position_mm"], expected[i], rtol=0, atol=CLOSE_MM, err_msg=name
        )
        text = (tmp_path / f"{i}.mrk.json").read_text()
        for share in found["confidence"]:
            assert any(f"confidence {share + e:.3f}" in text for e in (-5e-4, 0, 5e-4)), name


def test_a_cross_validation_is_the_mean_of_its_models(noise_crossval, scans, exported, tmp_path):
    path = tmp_path / "deeper" / "all.onnx"
    export.run_export(noise_crossval, path, "onnx")
    session, apart = open_onnx(path.read_bytes()), []
    expected = predict_files(noise_crossval, scans, tmp_path / "found")
    for i in range(len(POSED)):
        given = read_scan(scans / f"{i}.nii.gz")
        found = run_onnx(session, given)["position_mm"]
        np.testing.assert_allclose(found, expected[i], rtol=0, atol=CLOSE_MM)
        apart.append(np.abs(found - run_onnx(exported[2], given)["position_mm"]).max())
    assert max(apart) > 100 * CLOSE_MM  # than one of them


def test_the_printed_lines_run_without_jax(exported, scans, tmp_path):
    path, printed, session = exported
    assert str(path) in printed.splitlines()[0] and export.LEFT_OUT in printed.splitlines()[1]
    shutil.copy(scans / "2.nii.gz", tmp_path / "scan.nii.gz")
    hide = "import sys\nfor name in ('fetal_jax', 'jax', 'onnx'): sys.modules[name] = None\n"
    lines = hide + printed.split("\n\n", 1)[1]
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = run_onnx(session, read_scan(tmp_path / "scan.nii.gz"))
    for i, (label, line) in enumerate(zip(LABELS, done.stdout.splitlines(), strict=True)):
        assert line.startswith(label)
        values = np.array(line[len(label) :].replace("[", " ").replace("]", " ").split(), float)
        expected = [*found["position_mm"][i], found["confidence"][i]]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-4)


def test_the_readme_has_the_printed_lines():
    assert export.ONNX_USAGE.format(path="runs/fine/model.onnx") in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("spoil", ["no contrast", "not a number", "infinite", "singular"])
def test_what_predict_would_refuse_is_nan(exported, scans, spoil):
    given = read_scan(scans / "0.nii.gz")
    if spoil == "singular":
        given["affine"][:3, 0] = given["affine"][:3, 1]
    else:
        place = ... if spoil == "no contrast" else (0, 0, 0)
        given["voxels"][place] = {"not a number": np.nan, "infinite": np.inf}.get(spoil, 7.0)
    assert all(np.isnan(values).all() for values in run_onnx(exported[2], given).values())


def test_the_file_says_what_it_is_and_nothing_of_the_machine(exported, noise_crossval, tmp_path):
    content = exported[0].read_bytes()
    export.run_export(noise_crossval / "fold1", tmp_path / "again.onnx", "onnx")
    assert (tmp_path / "again.onnx").read_bytes() == content
    assert str(ROOT).encode() not in content and b".py" not in content
    model = onnx.load_from_string(content)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"]) == list(LABELS)
    assert said["left_out"] == export.LEFT_OUT and "RAS+" in said["outputs"]
    shape = model.graph.input[0].type.tensor_type.shape
    assert [size.dim_param for size in shape.dim] == ["x", "y", "z"]


@pytest.mark.parametrize("whose", ["somebody's", "another program's"])
def test_a_file_of_others_is_not_replaced(whose, noise_crossval, tmp_path):
    path = tmp_path / "model.onnx"
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph, producer_name="other")
    path.write_bytes(b"notes" if whose == "somebody's" else model.SerializeToString())
    before = path.read_bytes()
    with pytest.raises(InputError, match="model.onnx: expected a new file, or one that this progr"):
        export.run_export(noise_crossval / "fold1", path, "onnx")
    assert path.read_bytes() == before


def test_one_s_own_file_is_replaced(exported, noise_crossval, tmp_path):
    path = tmp_path / "model.onnx"
    shutil.copy(exported[0], path)
    written = path.stat().st_ino
    export.run_export(noise_crossval / "fold1", path, "onnx")
    assert path.stat().st_ino != written


def test_a_missing_package_is_one_line(noise_crossval, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match='the package onnx, got none: pip install "onnx>='):
        export.run_export(noise_crossval / "fold1", tmp_path / "model.onnx", "onnx")
    assert not any(tmp_path.iterdir())


NETWORKS = {
    "boxes": (rpn, {"model.widths": (2, 3, 4, 4), "data.labels": ("a", "b")}),
    "half precision, computed again, sums of squares": (
        emd,
        {"model.remat": True, "model.dtype": "bfloat16", "loss.name": "sse", "model.groups": 1},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name):
    """Fresh parameters: what comes is nonsense, but the same nonsense, in float32."""
    module, changes = NETWORKS[name]
    small = {"grid.side": 16, "grid.spacing_mm": 2.0, "model.widths": (2, 3)}
    config = module.get_config()
    config.update_from_flattened_dict(small | changes)
    record = SimpleNamespace(labels=("a", "b"), preprocessing=Preprocessing(16, 2.0, (0.5, 99.5)))

    def make_models():
        checked = check_config(config)
        detector = build_detector(checked, 2)
        params = [jax.jit(detector.init)(jax.random.key(0))]
        return OpenedModels(checked, record, detector, params, Calibrations(), [])

    shape, affine = SCANS["anisotropic, oblique"]
    given = {"voxels": np.float32(make_noise(shape)), "affine": np.float32(affine)}
    found = run_onnx(export.export_onnx(make_models()), given)
    config.model.dtype = "float32"
    expected = jax.jit(export.build_finder(make_models()))(**given)
    assert np.ptp(expected["position_mm"]) > 1.0
    np.testing.assert_allclose(found["position_mm"], expected["position_mm"], atol=0.01)
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-5)


def test_what_onnx_cannot_hold_is_one_line(noise_crossval, tmp_path, monkeypatch):
    monkeypatch.setattr("fetal_jax.to_onnx.graph.LARGEST", 100)
    with pytest.raises(InputError, match=r"m\.onnx: expected a run that \.onnx can hold, got: a f"):
        export.run_export(noise_crossval / "fold1", tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())
