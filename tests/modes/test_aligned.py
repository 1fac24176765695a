"""Two looks as a run: trained, stopped, evaluated, used and exported."""

import itertools
import shutil
from functools import partial
from types import SimpleNamespace

import face_runs
import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from noise_runs import read_numbers, read_results, read_rows
from onnx_files import run_onnx
from scans import SCANS, make_noise
from scipy.spatial.transform import Rotation

from configs import emd
from fetal_jax import plausibility
from fetal_jax.calibration import Calibration
from fetal_jax.data import loader
from fetal_jax.data.cases import FileVoxels
from fetal_jax.data.placement import Source, centre_placement
from fetal_jax.data.preprocess import Preprocessing, find_levels
from fetal_jax.detectors.detector import Detector, Found
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.examples import Examples
from fetal_jax.geometry import align_grid
from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.io.volumes import Volume, write_nifti
from fetal_jax.modes import export, predict, train
from fetal_jax.runs import (
    aligned,
    face_frame,
    finished,
    folder,
    new_scans,
    second_look,
    stages,
    start_from,
    usual,
)
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.config_table import check_config
from fetal_jax.runs.finished import OpenedModels, SecondLook
from fetal_jax.runs.predictions import read_predictions
from fetal_jax.runs.search import bind_searches
from fetal_jax.shape_model import ShapeModel
from fetal_jax.training import checkpoint, compiling
from fetal_jax.visibility_model import VisibilityModel

CHANGES = {
    "aligned.on": True,
    "aligned.widths": (2,),
    "aligned.steps": 2,
    # so that all runs here have a box of one shape, and its programs are compiled once
    "aligned.spacing_mm": 7.0,
    "aligned.margin_mm": 12.0,
    "log.save_every": 1,
    "report.on": False,
}


@pytest.fixture(scope="module", autouse=True)
def trust_any_frame():
    """Four steps find nothing that agrees; the second look counts all the same.

    And seven cases say what is usual.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_look, "LEAST_AGREEING", 0.0)
        patch.setattr(plausibility, "LEAST_READINGS", 5)
        yield


def run_train(heads_root, workdir):
    train.run_train(face_runs.make_config(heads_root, **CHANGES), workdir)


@pytest.fixture(scope="module")
def run(heads_root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    run_train(heads_root, workdir)
    return workdir


def test_another_run_takes_both_networks_over(run, heads_root, tmp_path, capsys):
    config = check_config(face_runs.make_config(heads_root, **CHANGES, **{"init.run": str(run)}))
    models, labels = finished.open_models(run), folder.read_data_record(run).labels
    second = models.seconds[0]
    networks = ((config, models.params[0], False), (second.config, second.params, True))
    for of_network, before, is_second in networks:
        build = partial(build_detector, of_network)
        fresh = build(len(labels)).init(jax.random.key(9))
        at = tmp_path / str(is_second)
        start = start_from.begin(config, at, build, fresh, labels, second=is_second)
        for ours, theirs in zip(*map(jax.tree.leaves, (start.params, before)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert len(start.taken) == len(jax.tree.leaves(before))
    assert capsys.readouterr().out.count("; all of it") == 2


def test_each_stage_is_judged(run):
    results = read_results(run)
    rows = results["stages"]
    assert [row["stage"] for row in rows] == [
        "first network",
        "mean shape in the frame",
        "second network, look 1",
        "second network, look 2",
    ]
    assert rows[-1]["d_mean_mm"] == pytest.approx(results["d_mean_mm"], rel=1e-6)
    assert len({row["d_mean_mm"] for row in rows}) == 4
    assert rows[0]["no_frame"] == 0 and 0 <= rows[2]["agreeing"] <= 1
    frame = face_frame.read_frame(run)
    assert frame.shape_mm.shape == (19, 3) and frame.box.contains(frame.shape_mm).all()
    lines = (run / "aligned" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == results["second_steps"] == 2


def test_stages_of_two_folds_are_pooled(run):
    """As if they were one's; each fold keeps its own beside its predictions."""
    record = folder.read_data_record(run)
    cases = finished.open_tested(finished.open_config(run), run, record)
    kept = stages.read_stages(run)
    parts = [
        (cases.select([n]), stages.StagePoints(*(array[[n]] for array in kept)))
        for n in range(len(cases))
    ]
    assert stages.summarise_stages(parts) == read_results(run)["stages"]


def test_new_scans_are_found_as_the_evaluation_found_them(run, heads_root, tmp_path):
    predict.run_predict(run, [str(heads_root / "volumes")], tmp_path, "mrk.json")
    found = read_predictions(run / "predictions.npz")
    tested = sorted(
        p.name.removesuffix(".mrk.json") for p in (run / "predictions").glob("*.mrk.json")
    )
    assert len(tested) == len(found.points_mm) == face_runs.OUTSIDE
    for name, points_mm in zip(tested, found.points_mm, strict=True):
        points = read_landmarks(tmp_path / f"{name}.mrk.json")
        given = np.stack([points[label] for label in read_results(run)["per_landmark"]])
        np.testing.assert_allclose(given, points_mm, atol=2e-3)


def test_what_looks_wrong_is_said_where_looking_pays_most_first(run, heads_root, tmp_path, capsys):
    """The predictions themselves are held to the annotations' shape, which they do not know."""
    assert usual.read_usual(run).sd_mm.shape == (19,)
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    learned = usual.read_usual(run)
    usual.write_usual(workdir, learned._replace(sd_mm=np.full(19, 1e-3)))  # nothing is like it
    volumes = [str(heads_root / "volumes" / f"c{i}.nii.gz") for i in range(3)]
    predict.run_predict(workdir, volumes, tmp_path / "found", "mrk.json")
    printed = capsys.readouterr().out
    rows = read_rows(tmp_path / "found" / "review.csv")
    gains = [float(row["gain_mm"]) for row in rows]
    assert gains == sorted(gains, reverse=True) and len(rows) == 3 * 20
    whole = [row for row in rows if not row["label"]]
    assert all("do not lie as those of the other cases" in row["why"] for row in whole)
    worst = [row["case"] for row in whole]
    said = [line for line in printed.splitlines() if "do not lie" in line]
    assert [line.split(":")[0].strip() for line in said] == worst
    assert "3 of 3 scans have something to look at, the worst first:" in printed
    scenes = sorted(path.name for path in (tmp_path / "found" / "slicer").iterdir())
    assert scenes == [f"c{i}.mrml" for i in range(3)]
    usual.write_usual(workdir, learned._replace(sd_mm=np.full(19, 1e3)))
    config = finished.open_config(workdir).to_dict()
    config["evaluation"]["min_confidence"] = 0.0
    folder.write_json(workdir / "config.json", config)
    predict.run_predict(workdir, volumes[:1], tmp_path / "found", "mrk.json")
    assert "nothing looks wrong with them" in capsys.readouterr().out
    again = read_rows(tmp_path / "found" / "review.csv")
    assert [row for row in again if row["case"] != "c0"] == [r for r in rows if r["case"] != "c0"]
    assert {row["why"] for row in again if row["case"] == "c0"} == {""}
    assert [path.name for path in sorted((tmp_path / "found" / "slicer").iterdir())] == scenes[1:]


def test_a_run_that_looks_from_all_sides(heads_root, tmp_path, monkeypatch):
    """It learns faces that stand upright, whatever they do in the scan, and finds as it judged."""
    learned, whole = [], loader.load_examples

    def load(training, step, **settings):
        examples = whole(training, step, **settings)
        learned.append(examples)
        return examples

    monkeypatch.setattr(loader, "load_examples", load)
    turn = Rotation.from_rotvec([0.0, 0.0, 130.0], degrees=True).as_matrix()
    for volume in (heads_root / "volumes").iterdir():
        image = nibabel.load(volume)
        affine = np.eye(4)
        affine[:3, :3] = turn
        lying = affine @ image.affine
        write_nifti(tmp_path / "lying" / "volumes" / volume.name, np.asarray(image.dataobj), lying)
        name = volume.name.replace(".nii.gz", ".mrk.json")
        points = read_landmarks(heads_root / "landmarks" / name)
        points = {label: turn @ point for label, point in points.items()}
        write_landmarks(tmp_path / "lying" / "landmarks" / name, points)
    shutil.copy(heads_root / "cases.csv", tmp_path / "lying")
    changes = CHANGES | {"aligned.poses": 24, "aligned.min_visible": 0.0, "augment.on": False}
    workdir = tmp_path / "run"
    train.run_train(face_runs.make_config(tmp_path / "lying", **changes), workdir)
    labels = list(read_results(workdir)["per_landmark"])
    for examples in learned[:2]:  # of the first network
        up = examples.points_vox[:, labels.index("n")] - examples.points_vox[:, labels.index("pg")]
        assert (up[:, 2] > 0.95 * np.linalg.norm(up, axis=1)).all()
    found = read_predictions(workdir / "predictions.npz")
    tested = sorted(
        p.name.removesuffix(".mrk.json") for p in (workdir / "predictions").glob("*.mrk.json")
    )
    volumes = [str(tmp_path / "lying" / "volumes" / f"{name}.nii.gz") for name in tested]
    predict.run_predict(workdir, volumes, tmp_path, "mrk.json")
    for name, points_mm in zip(tested, found.points_mm, strict=True):
        points = read_landmarks(tmp_path / f"{name}.mrk.json")
        given = np.stack([points[label] for label in labels])
        np.testing.assert_allclose(given, points_mm, atol=2e-3)


def test_a_scan_in_which_nothing_can_be_seen_has_a_file_that_says_so(
    run, heads_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(aligned, "read_min_visible", lambda config: 1.0)
    predict.run_predict(run, [str(heads_root / "volumes" / "c0.nii.gz")], tmp_path, "mrk.json")
    assert "c0.nii.gz: nothing can be seen, not visible: " in capsys.readouterr().out
    points = read_landmarks(tmp_path / "c0.mrk.json")
    assert len(points) == 19 and all(np.isnan(p).all() for p in points.values())
    assert "found not to be visible" in (tmp_path / "measurements.csv").read_text()


def test_stopped_in_each_stage_and_started_again_it_ends_with_the_same_numbers(
    run, heads_root, tmp_path
):
    """After the first save of each network."""

    class Stop(Exception):
        pass

    save = checkpoint.save_checkpoint
    for stop_after in (1, 2):  # in the first network; then its last save and one of the second
        saved = []

        def save_and_stop(*args, saved=saved, stop_after=stop_after):
            save(*args)
            saved.append(args)
            if len(saved) == stop_after:
                raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "save_checkpoint", save_and_stop)
            with pytest.raises(Stop):
                run_train(heads_root, tmp_path)
    assert (tmp_path / "aligned" / "checkpoints" / "1").exists()
    assert not (tmp_path / "aligned" / "checkpoints" / "2").exists()
    run_train(heads_root, tmp_path)
    assert read_numbers(tmp_path) == read_numbers(run)


def test_a_second_network_that_is_not_there_is_one_line(run, heads_root, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "aligned" / "checkpoints")
    with pytest.raises(InputError, match="aligned/checkpoints: expected the checkpoints of a run"):
        predict.run_predict(workdir, [str(heads_root / "volumes")], tmp_path / "found", "mrk.json")


# ---- the exported function, by networks that are formulas ----

ASKED = Preprocessing(8, 2.5, (0.5, 99.5))
LABELS = ("a", "b", "c", "d", "e")
SHAPE_MM = np.array([[-6.0, 1, 0], [6, 1, 0], [0, 5, -4], [0, -3, 5], [0, -4, -1.0]])
BOX = align_grid((6, 8, 10), 1.5, np.array([-4.0, -5.5, -7.0]))


VISIBILITY = VisibilityModel(np.full(5, -3.0, np.float32), np.float32([[1.0, 0.0, 0.0]] * 5))
CALIBRATIONS = Calibrations(Calibration(0.3, 1.2, 50), Calibration(-0.2, 0.8, 50))


def find(places, examples):
    """Landmarks in fixed places, pulled along by where the volume is bright."""
    volumes = examples.volumes.astype(jnp.float32)
    index = jnp.stack([jnp.float32(axis) for axis in np.indices(volumes.shape[1:])])
    bright = jnp.einsum("bdhw,cdhw->bc", volumes, index, precision="highest")
    bright = bright / jnp.sum(volumes, axis=(1, 2, 3))[:, None]
    points = places[None] + 0.5 * bright[:, None, :]
    mass = jax.nn.sigmoid(bright[:, :1] - 2.0) * jnp.full(points.shape[:2], 0.8)
    return Found(points, points, mass, evidence=points)


def make_models(seeds, passes, poses=1):
    """Models with a place of their own for each landmark, and with a frame of their own."""
    detector = Detector(None, None, find, "")
    config = emd.get_config()
    config.aligned.on, config.aligned.passes, config.aligned.poses = True, passes, poses
    record = SimpleNamespace(labels=LABELS, preprocessing=ASKED)
    params, looks = [], []
    for rng in map(np.random.default_rng, seeds):
        params.append(np.float32(1.0 + rng.uniform(0, 4, (5, 3))))
        second = np.float32(BOX.to_voxels(SHAPE_MM) - 2.0 + rng.normal(0, 0.3, (5, 3)))
        modes = rng.normal(0, 0.5, (2, 5, 3))
        frame = face_frame.Frame(ShapeModel(SHAPE_MM + rng.normal(0, 0.3, (5, 3)), modes, 0.4), BOX)
        looks.append(SecondLook(config, frame, detector, second, 1, VISIBILITY))
    return OpenedModels(config, record, detector, params, CALIBRATIONS, looks)


def find_by_predict(models, name):
    """`Predictions` of a scan, its voxels, its affine."""
    shape, affine = SCANS[name]
    voxels = make_noise(shape)
    return find_in(models, voxels, affine, name), voxels, affine


def find_in(models, voxels, affine, name):
    levels = find_levels(Volume(voxels, affine, name), ASKED.percentiles)
    file = FileVoxels(voxels, affine, levels)
    placement = centre_placement(side=ASKED.side, spacing_mm=ASKED.spacing_mm)
    grid = placement.place(Source(voxels.shape, affine))
    scan = new_scans.Prepared(name, file, file.sample(grid), grid)
    searches = bind_searches(models)
    found, framed = new_scans.find_points(searches, models.calibrations, scan)
    assert framed.tolist() == [True] * len(models.params)
    return found


def test_models_are_used_by_their_mean():
    both, _, _ = find_by_predict(make_models([1, 2], 2), "anisotropic, oblique")
    each = [find_by_predict(make_models([n], 2), "anisotropic, oblique")[0] for n in (1, 2)]
    for name in ("points_mm", "completed_mm", "seen"):
        one, other = (getattr(found, name) for found in each)
        assert np.abs(one - other).max() > 0.01
        np.testing.assert_allclose(getattr(both, name), (one + other) / 2, atol=1e-4)


def test_how_a_file_orders_its_axes_makes_no_difference():
    """48 ways to store the same voxels in the same places, by two looks."""
    models = make_models([1], 2)
    expected, voxels, affine = find_by_predict(models, "anisotropic, oblique")
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            stored, turned = voxels.transpose(order), affine[:, [*order, 3]].copy()
            for axis in np.flatnonzero(flips):
                stored = np.flip(stored, axis)
                turned[:3, 3] += turned[:3, axis] * (stored.shape[axis] - 1)
                turned[:3, axis] *= -1
            found = find_in(models, stored, turned, f"{order} {flips}")
            for name in ("points_mm", "completed_mm", "seen"):
                wanted = getattr(expected, name)
                np.testing.assert_allclose(getattr(found, name), wanted, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(
    ("name", "passes", "seeds", "poses"),
    [
        ("oblique, far away", 1, [1], 1),
        ("anisotropic, oblique", 2, [1, 2], 24),
    ],
)
def test_both_exported_files_find_what_predict_finds(name, passes, seeds, poses):
    models = make_models(seeds, passes, poses)
    expected, voxels, affine = find_by_predict(models, name)
    assert np.ptp(expected.visibility) > 0.05
    if poses > 1:  # it is not the first one that is chosen
        as_it_lies, _, _ = find_by_predict(make_models(seeds, passes), name)
        assert np.abs(as_it_lies.points_mm - expected.points_mm).max() > 1.0
    given = {"voxels": np.float32(voxels), "affine": np.float32(affine)}
    each = jax.jit(export.build_function(models))(**given)
    assert tuple(each) == LABELS
    by_jax = jax.tree.map(lambda *rows: np.stack(rows), *each.values())
    for said in (by_jax, run_onnx(export.export_onnx(models), given)):
        np.testing.assert_allclose(said["position_mm"], expected.points_mm[0], atol=0.01)
        np.testing.assert_allclose(said["confidence"], expected.confidence[0], rtol=1e-5)
        np.testing.assert_allclose(said["visible"], expected.visibility[0], atol=1e-3)
        np.testing.assert_allclose(said["expected_mm"], expected.completed_mm[0], atol=0.01)


def test_each_network_searches_by_one_program(heads_root, tmp_path, monkeypatch):
    """Validation, the evidence of visibility and evaluation ask alike: a program takes long."""
    compile_faster, programs = compiling.compile_faster, []

    def compile_known(mapped, *args, **settings):
        if isinstance(args[-1], Examples) and len(args) == 2:  # parameters, and not a step's state
            programs.append((len(jax.tree.leaves(args[0])), mapped.lower(*args).as_text()))
        return compile_faster(mapped, *args, **settings)

    monkeypatch.setattr(compiling, "compile_faster", compile_known)
    config = face_runs.make_config(heads_root, **CHANGES, **{"evaluation.batch": 1})
    train.run_train(config, tmp_path)
    assert len(programs) > 2
    assert len(set(programs)) == 2
