"""The launcher as its user meets it: the whole path, a line for each mistake, kills, restarts."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest

from fetal_jax.io.markups import read_landmarks, write_fcsv, write_mrk_json
from fetal_jax.training import checkpoint

HERE = Path(__file__).parent.parent
LABELS = ("n", "chL", "chR")
SIDE = 16
SMALL = [
    "--config=configs/emd.py",
    "--config.grid.side=16",
    "--config.model.widths=(4,8)",
    "--config.report.on=False",
    "--config.log.every=1",
    "--config.log.save_every=2",
]


def make_dataset(root: Path, cases: int = 6) -> Path:
    """Blobs of three sizes in noise, their centres the landmarks; 2 mm voxels, L P S order."""
    rng = np.random.default_rng(0)
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = [15, 15, -15]
    (root / "volumes").mkdir(parents=True)
    index = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1)
    for i in range(cases):
        at = rng.uniform(4, 11, (len(LABELS), 3))
        image = 0.05 * rng.random((SIDE,) * 3)
        for point, width in zip(at, (1.0, 1.5, 2.2), strict=True):
            image += np.exp(-((index - point) ** 2).sum(-1) / (2 * width**2))
        header = nib.Nifti1Image((255 * image / image.max()).astype(np.uint8), affine)
        header.header.set_xyzt_units("mm")
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        nib.save(header, root / "volumes" / f"c{i}.nii.gz")
        world = at @ affine[:3, :3].T + affine[:3, 3]
        points = dict(zip(LABELS, world, strict=True))
        write_mrk_json(root / "landmarks" / f"c{i}.mrk.json", points)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder for the data set, the runs and the cache."""
    home = tmp_path_factory.mktemp("launch")
    make_dataset(home / "data")
    return home


def launch(home, *arguments, **environment):
    """Run launch.py; the result has returncode, stdout and stderr."""
    return subprocess.run(
        [sys.executable, "launch.py", *map(str, arguments)],
        cwd=HERE,
        env=os.environ | {"XDG_CACHE_HOME": str(home / "cache")} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def train_arguments(home, *more, data="data", run="run"):
    return [*SMALL, f"--config.data.root={home / data}", f"--workdir={home / run}", *more]


@pytest.fixture(scope="module")
def run(home):
    """A finished run of four steps."""
    result = launch(home, *train_arguments(home, "--config.train.steps=4"))
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return home / "run"


def test_training_leaves_what_is_promised(home, run):
    results = json.loads((run / "results.json").read_text())
    promised = (
        "cases landmarks d_mean_mm d_mean_ci_mm d_sd_mm d_median_mm success_rate guess_d_mean_mm "
        "per_landmark config seed steps seconds device"
    )
    assert set(promised.split()) <= results.keys()
    assert results["steps"] == 4 and set(results["per_landmark"]) == set(LABELS)
    with open(run / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["error_mm"]) for row in rows]
    assert len(rows) == results["cases"] * len(LABELS) == results["landmarks"]
    np.testing.assert_allclose(results["d_mean_mm"], np.mean(errors), atol=1e-4)
    for row in rows:
        truth, found = (
            np.array([float(row[f"{kind}_{axis}"]) for axis in "xyz"])
            for kind in ("truth", "prediction")
        )
        assert abs(np.linalg.norm(truth - found) - float(row["error_mm"])) < 1e-3
        saved = read_landmarks(run / "predictions" / f"{row['case']}.mrk.json")
        np.testing.assert_allclose(saved[row["label"]], found, atol=1e-4)


def test_a_finished_run_says_so_and_evaluates_again_alike(home, run):
    before = json.loads((run / "results.json").read_text())
    again = launch(home, *train_arguments(home, "--config.train.steps=4"))
    assert again.returncode == 0 and "is finished" in again.stdout, again.stderr
    evaluated = launch(home, "--mode=evaluate", f"--workdir={run}")
    assert evaluated.returncode == 0 and evaluated.stderr == "", evaluated.stderr
    assert json.loads((run / "results.json").read_text()) == before


def test_prediction_is_that_of_evaluation_in_every_axis_order(home, run):
    """48 ways to store a volume, one answer in the world; a bad file costs no good one."""
    case = next((run / "predictions").glob("*.mrk.json")).name.removesuffix(".mrk.json")
    expected = read_landmarks(run / "predictions" / f"{case}.mrk.json")
    image = nib.load(home / "data" / "volumes" / f"{case}.nii.gz")
    scans = home / "scans"
    scans.mkdir()
    signs = itertools.product((1, -1), repeat=3)
    for i, (order, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), list(signs))
    ):
        turned = image.as_reoriented(np.stack([order, flips], axis=1))
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, 1)
        nib.save(turned, scans / f"scan{i}.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no volume")
    predict = ["--mode=predict", f"--workdir={run}", f"--volumes={scans}/*.nii.gz"]
    result = launch(home, *predict, f"--output={home / 'found'}", "--format=fcsv")
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ") and "bad.nii.gz" in result.stderr
    assert result.stderr.count("\n") == 1
    found = sorted((home / "found").glob("*.fcsv"))
    assert len(found) == 48 == len(list((home / "found").iterdir())) - 1
    with open(home / "found" / "measurements.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["measurement"] for row in rows] == ["mouth_width"] * 48
    for row in rows:  # a number, or why there is none
        points = read_landmarks(home / "found" / f"{row['case']}.fcsv")
        width = np.linalg.norm(points["chL"] - points["chR"])
        assert row["note"] or abs(float(row["value"]) - width) < 1e-3
        assert bool(row["note"]) != bool(row["value"])
    for path in found:
        points = read_landmarks(path)
        for label in LABELS:
            np.testing.assert_allclose(points[label], expected[label], atol=0.01)


def test_predictions_are_markups_unless_asked_otherwise(home, run):
    volumes = f"--volumes={home / 'data' / 'volumes'}/*.nii.gz"
    output = home / "markups"
    result = launch(home, "--mode=predict", f"--workdir={run}", volumes, f"--output={output}")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    names = [*(f"c{i}.mrk.json" for i in range(6)), "measurements.csv"]
    assert sorted(path.name for path in output.iterdir()) == names
    for path in (run / "predictions").iterdir():
        found, expected = read_landmarks(output / path.name), read_landmarks(path)
        for label in LABELS:
            np.testing.assert_allclose(found[label], expected[label], rtol=0, atol=1e-3)


# ---- each mistake: one line, status 1 ----


def edit_nifti(path, change):
    image = nib.load(path)
    data, affine = np.asarray(image.dataobj), image.affine.copy()
    nib.save(change(data, affine, image.header), path)


def as_4d(data, affine, header):
    return nib.Nifti1Image(np.stack([data, data], -1), affine)


def with_nan(data, affine, header):
    data = data.astype(np.float32)
    data[3, 3, 3] = np.nan
    return nib.Nifti1Image(data, affine)


def singular(data, affine, header):
    image = nib.Nifti1Image(data, affine)
    flat = affine.copy()
    flat[:3, 1] = flat[:3, 0]
    image.set_qform(None, 0)
    image.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = flat[row]
    return nib.Nifti1Image(data, None, image.header)


def disagreeing(data, affine, header):
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    other = affine.copy()
    other[:3, 3] += 7
    image.set_qform(other, 1)
    return image


def edit_markup(path, change):
    content = json.loads(path.read_text())
    change(content["markups"][0])
    path.write_text(json.dumps(content))


def move_out(markup):
    markup["controlPoints"][0]["position"] = [500.0, 0.0, 0.0]


def double(markup):
    markup["controlPoints"].append(dict(markup["controlPoints"][0]))


def use_metres(markup):
    markup["coordinateUnits"] = "m"


def forget_axes(root):
    path = root / "landmarks" / "c1.fcsv"
    write_fcsv(path, read_landmarks(root / "landmarks" / "c1.mrk.json"))
    (root / "landmarks" / "c1.mrk.json").unlink()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "CoordinateSystem" not in line))


def truncate(root):
    path = root / "volumes" / "c1.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


VOLUME, MARKUP = "volumes/c1.nii.gz", "landmarks/c1.mrk.json"
BAD_DATA = {
    "missing folder": (shutil.rmtree, "no such folder"),
    "no landmark file": (lambda r: (r / MARKUP).unlink(), "c1.nii.gz"),
    "label not in landmarks.csv": (
        lambda r: (r / "landmarks.csv").write_text("label\nn\nchL\n"),
        "chR",
    ),
    "truncated": (truncate, "c1.nii.gz"),
    "4D": (lambda r: edit_nifti(r / VOLUME, as_4d), "c1.nii.gz"),
    "NaN": (lambda r: edit_nifti(r / VOLUME, with_nan), "c1.nii.gz"),
    "singular affine": (lambda r: edit_nifti(r / VOLUME, singular), "c1.nii.gz"),
    "sform and qform": (lambda r: edit_nifti(r / VOLUME, disagreeing), "c1.nii.gz"),
    "fcsv with no system": (forget_axes, "c1.fcsv"),
    "metres": (lambda r: edit_markup(r / MARKUP, use_metres), "c1.mrk.json"),
    "one label twice": (lambda r: edit_markup(r / MARKUP, double), "c1.mrk.json"),
    "outside the volume": (lambda r: edit_markup(r / MARKUP, move_out), "c1.mrk.json"),
}
BAD_FLAGS = {
    "mistyped key": (["--config.optim.lrr=1"], "the nearest is config.optim.lr"),
    "unknown section": (["--config.optin.lr=1"], "the nearest is config.optim"),
    "wrong type": (["--config.optim.lr=abc"], "config.optim.lr"),
    "unknown mode": (["--mode=trian"], "mode"),
    "unknown flag": (["--wrokdir=x"], "wrokdir"),
    "missing config": (["--config=configs/nope.py"], "configs/nope.py"),
    "unknown recipe": (["--config=configs/emd.py:papr"], "papr"),
    "side that levels do not divide": (["--config.grid.side=17"], "config.grid.side"),
    "unknown loss": (["--config.loss.name=l2"], "config.loss.name"),
}
FORKS = "ignore:os.fork:RuntimeWarning"  # JAX's warning; it has not started a thread yet
# Runs the launcher many times in one process, so that JAX is imported once.
DRIVER = """
import json, os, sys
import fetal_jax.check, fetal_jax.crossval, fetal_jax.predict  # imported, not yet started
found = []
for arguments in json.load(sys.stdin):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from fetal_jax import cli
        sys.argv = ["launch.py", *arguments]  # where config_flags looks for overrides
        try:
            status = cli.main(sys.argv)
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 99
        sys.stderr.flush()
        os._exit(status)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    found.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text])
print(json.dumps(found))
"""


def test_each_mistake_is_one_line(home, run):
    arguments, expected = [], []
    for name, (spoil, words) in BAD_DATA.items():
        root = home / "bad" / name.replace(" ", "_")
        shutil.copytree(home / "data", root)
        spoil(root)
        workdir = home / "bad_runs" / root.name
        arguments.append([*SMALL, f"--config.data.root={root}", f"--workdir={workdir}"])
        expected.append((name, words))
    for name, (flags, words) in BAD_FLAGS.items():
        workdir = home / "bad_runs" / name.replace(" ", "_")
        arguments.append(train_arguments(home, *flags)[:-2] + [f"--workdir={workdir}", *flags])
        expected.append((name, words))
    other = home / "other_network"
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    config["model"]["widths"] = [4, 16]
    (other / "config.json").write_text(json.dumps(config))
    predict = ["--mode=predict", f"--volumes={home / 'data' / VOLUME}", f"--output={home / 'out'}"]
    for name, flags, words in (
        ("another network", [*predict, f"--workdir={other}"], "expected the network"),
        ("no run", [*predict, f"--workdir={home / 'nowhere'}"], "nowhere"),
        ("no volumes", ["--mode=predict", f"--workdir={run}"], "--volumes"),
        ("no such volume", [*predict, f"--workdir={run}", "--volumes=nope/*.nii"], "nope"),
        ("no workdir", ["--mode=evaluate"], "--workdir"),
        ("no workdir to export", ["--mode=export"], "--workdir"),
        ("no config", ["--mode=train"], "--config"),
        ("another config", train_arguments(home, "--config.optim.lr=0.5"), "optim.lr"),
    ):
        arguments.append(flags)
        expected.append((name, words))
    result = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(arguments),
        cwd=HERE,
        env=os.environ | {"XDG_CACHE_HOME": str(home / "cache"), "PYTHONWARNINGS": FORKS},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    wrong = []
    for (name, words), (status, text) in zip(expected, json.loads(result.stdout), strict=True):
        lines = text.splitlines()
        good = status == 1 and len(lines) == 1 and lines[0].startswith("error: ")
        if not good or words not in text:
            wrong.append(f"{name}: status {status}, {text[-600:]!r}")
    assert not wrong, "\n".join(wrong)


def test_a_batch_that_does_not_divide_by_the_devices(home):
    flags = train_arguments(home, "--config.train.batch=6", run="four")
    result = launch(home, *flags, JAX_NUM_CPU_DEVICES="4")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: config.train.batch: expected a multiple of the 4 devices, got 6"
    ]


# ---- kills ----


def start(home, name, steps):
    arguments = train_arguments(home, f"--config.train.steps={steps}", run=name)
    return subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=HERE,
        env=os.environ | {"XDG_CACHE_HOME": str(home / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, found):
    """True as soon as found() is; False if the process ends first."""
    while process.poll() is None:
        if found():
            return True
        time.sleep(0.002)
    return False


def read_state(folder):
    manager = checkpoint.open_checkpoints(folder)
    state = manager.restore(manager.latest_step())
    manager.close()
    return jax.tree.leaves(state)


def test_killed_and_started_again_ends_with_the_same_numbers(home):
    steps = 40
    whole = start(home, "whole", steps)
    text = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, text
    checkpoints, saving = home / "killed" / "checkpoints", 0
    for after in (4, 12, 24):  # steps; the later kills come in the middle of a save
        process = start(home, "killed", steps)

        def reached(after=after):
            done = [int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()]
            if max(done, default=0) < after:
                return False
            return after == 4 or any(checkpoints.glob("*orbax-checkpoint-tmp*"))

        assert wait_for(process, reached), process.stdout.read()
        process.send_signal(signal.SIGKILL)
        text = process.communicate()[0]
        assert ("going on from step" in text) == (after != 4)
        saving += any(checkpoints.glob("*orbax-checkpoint-tmp*"))
    assert saving  # at least one save was cut off
    last = start(home, "killed", steps)
    text = last.communicate(timeout=300)[0]
    assert last.returncode == 0, text
    begun = [int(line.split()[4]) for line in text.splitlines() if "going on from" in line]
    assert begun and begun[0] >= 24
    assert not any(checkpoints.glob("*orbax-checkpoint-tmp*"))
    ours, theirs = (read_state(home / name / "checkpoints") for name in ("killed", "whole"))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    logged = [
        json.loads(line)["step"]
        for line in (home / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert logged == list(range(1, steps + 1))
