"""Flags and values that cannot be, and the modes beside training: each mistake is one line.

The whole path of files, kills and restarts is in test_launch.py.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fetal_jax.io.markups import read_landmarks, write_landmarks
from fetal_jax.io.volumes import write_nifti

ROOT = Path(__file__).parents[1]
CONFIG = f"--config={ROOT}/configs/emd.py"
SIDE = 12
AFFINE = np.array([[-2.0, 0, 0, 11], [0, -2.0, 0, 11], [0, 0, 2.0, -11], [0, 0, 0, 1]])
LABELS = ("L", "R", "nose")
SPLITS = ("train", "train", "train", "validation", "test", "test")
TINY = [
    "--config.grid.side=8",
    "--config.model.widths=(2,)",
    "--config.augment.on=False",
    "--config.report.on=False",
    "--config.train.steps=4",
    "--config.log.every=2",
    "--config.log.save_every=2",
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Noise in 24 mm cubes, three landmarks each."""
    root, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    rows = ["case,subject,split"]
    for i, split in enumerate(SPLITS):
        voxels = rng.integers(0, 255, (SIDE,) * 3, dtype=np.uint8)
        write_nifti(root / "volumes" / f"c{i}.nii.gz", voxels, AFFINE)
        points = dict(zip(LABELS, rng.uniform(-8, 8, (3, 3)), strict=True))
        write_landmarks(root / "landmarks" / f"c{i}.mrk.json", points)
        rows.append(f"c{i},s{i},{split}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    return root


class Launcher:
    """Runs launch.py in forks of one process, with one cache of compiled programs."""

    def __init__(self, folder):
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "launch_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
        )

    def run(self, *argv):
        files = {name: self._folder / name for name in ("stdout", "stderr")}
        request = {"argv": [str(a) for a in argv], "cwd": str(self._folder)}
        request |= {name: str(path) for name, path in files.items()}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        out, err = (files[name].read_text() for name in ("stdout", "stderr"))
        return SimpleNamespace(status=status, out=out, err=err)

    def close(self):
        self._server.stdin.close()
        self._server.wait(timeout=10)
        self._server.stdout.close()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    launcher = Launcher(tmp_path_factory.mktemp("launch"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def trained(launcher, cohort, tmp_path_factory):
    """The folder of a finished run; a test that changes it copies it."""
    workdir = tmp_path_factory.mktemp("runs") / "emd"
    done = launcher.run(CONFIG, *TINY, f"--config.data.root={cohort}", f"--workdir={workdir}")
    assert done.status == 0 and done.err == "", done
    return workdir


def check_refusal(done, *parts):
    """Exactly one line, which begins as it should, and no traceback."""
    assert done.status == 1, done
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    for part in parts:
        assert str(part) in lines[0], done.err


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        pytest.param(["--config.optm.lr=1"], ["got config.optm", "is config.optim"], id="section"),
        pytest.param(["--config.optim.lr=abc"], ["lr", "abc"], id="a word for a number"),
        pytest.param(["--config.train.steps=1.5"], ["steps", "1.5"], id="half a step"),
        pytest.param(["--wrkdir=x"], ["wrkdir", "workdir"], id="unknown flag"),
        pytest.param(["train"], ["expected flags", "'train'"], id="no flag"),
        pytest.param(["--config=no.py"], ["--config=no.py: expected a config file"], id="file"),
        pytest.param(
            ["--config.model.widths=(2, 4, 8, 16, 32)"],
            ["config.grid.side: expected a multiple of 16, for 5 levels, got 8"],
            id="widths that do not fit the side",
        ),
        pytest.param(["--config.model.widths=()"], ["config.model.widths", "()"], id="no widths"),
        pytest.param(["--config.model.groups=3"], ["config.model.groups", "got 3"], id="groups"),
        pytest.param(["--config.model.dtype=half"], ["config.model.dtype", "'half'"], id="dtype"),
        pytest.param(["--config.loss.name=mse"], ["config.loss.name", "'mse'"], id="loss"),
        pytest.param(["--config.target.kind=box"], ["config.target.kind", "'box'"], id="target"),
        pytest.param(["--config.target.width_vox=0"], ["width_vox", "got 0"], id="target width"),
        pytest.param(["--config.optim.decay=x"], ["config.optim.decay", "'x'"], id="decay"),
        pytest.param(["--config.optim.lr=-1"], ["config.optim.lr", "got -1"], id="negative lr"),
        pytest.param(["--config.train.batch=0"], ["config.train.batch", "got 0"], id="no batch"),
        pytest.param(["--config.train.steps=0"], ["config.train.steps", "got 0"], id="no steps"),
        pytest.param(["--config.log.every=0"], ["config.log.every", "got 0"], id="never log"),
        pytest.param(
            ["--config.log.save_every=0"], ["config.log.save_every", "got 0"], id="never save"
        ),
        pytest.param(
            ["--config.grid.percentiles=(99.5, 0.5)"],
            ["config.grid.percentiles", "got (99.5, 0.5)"],
            id="percentiles the wrong way round",
        ),
        pytest.param(["--config.grid.side=-8"], ["config.grid.side", "got -8"], id="side"),
        pytest.param(["--config.grid.spacing_mm=-1"], ["spacing_mm", "got -1"], id="spacing"),
        pytest.param(["--config.data.test_folds=0"], ["test_folds", "got 0"], id="no folds"),
        pytest.param(
            ["--config.data.validation_share=1.5"],
            ["config.data.validation_share", "got 1.5"],
            id="more than all validate",
        ),
        pytest.param(
            ["--config.evaluation.radii_mm=(2.0, -1.0)"], ["radii_mm", "(2.0, -1.0)"], id="radii"
        ),
        pytest.param(
            ["--config.data.coordinate_system=XYZ"], ["coordinate_system", "'XYZ'"], id="axes"
        ),
        pytest.param(["--config.data.split=none.csv"], ["none.csv"], id="missing split table"),
        pytest.param(
            ["--config.data.labels=('nose','chin')"],
            ["config.data.labels: expected landmarks of", "got chin", "it has L, R, nose"],
            id="a landmark that is not there",
        ),
        pytest.param(["--config.model.name=vit"], ["config.model.name", "'vit'"], id="network"),
        pytest.param(["--config.crossval.folds=1"], ["config.crossval.folds", "got 1"], id="fold"),
        pytest.param(
            ["--config.evaluation.age_groups_weeks=(28.0, 24.0)"],
            ["age_groups_weeks", "(28.0, 24.0)"],
            id="ages the wrong way round",
        ),
        pytest.param(
            ["--mode=crossval", "--config.crossval.folds=7"],
            ["config.crossval: expected at most one fold for each of the 4 subjects", "got 7"],
            id="more folds than subjects",
        ),
        pytest.param(
            ["--mode=crossval", "--config.crossval.external_site=west"],
            ["config.crossval.external_site", "got 'west'"],
            id="no such site",
        ),
        pytest.param(
            ["--mode=crossval", "--config.crossval.split=none.csv"], ["none.csv"], id="no folds.csv"
        ),
        pytest.param(["--mode=sweep"], ["expected --vary"], id="a sweep of nothing"),
        pytest.param(
            ["--mode=sweep", "--vary=loss.omga=1"], ["expected a key of the config"], id="vary"
        ),
        pytest.param(["--mode=compare"], ["--runs: expected folders of runs"], id="no runs"),
        pytest.param(
            ["--mode=compare", "--runs=nowhere"],
            ["nowhere: expected the folder of a run"],
            id="no such run",
        ),
    ],
)
def test_a_bad_command_is_one_line(launcher, cohort, tmp_path, argv, parts):
    known = [CONFIG, *TINY, f"--config.data.root={cohort}", f"--workdir={tmp_path / 'run'}"]
    keys = tuple(argument.split("=")[0] + "=" for argument in argv)
    # a tuple that is given twice is joined
    known = [flag for flag in known if flag == CONFIG or not flag.startswith(keys)]
    check_refusal(launcher.run(*known, *argv), *parts)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_all_bad_values_are_listed_at_once(launcher, cohort, tmp_path):
    flags = ["--config.log.every=0", "--config.train.steps=-1", "--config.grid.side=-8"]
    done = launcher.run(
        CONFIG, *TINY, *flags, f"--config.data.root={cohort}", f"--workdir={tmp_path}"
    )
    assert done.status == 1 and len(done.err.splitlines()) == 3, done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spacing", ["0.0", "4.0"])
def test_all_bad_files_are_listed_at_once(launcher, cohort, tmp_path, spacing):
    root = Path(shutil.copytree(cohort, tmp_path / "data"))
    spoiled = [root / "volumes" / f"c{i}.nii.gz" for i in (0, 2, 4)]
    data = spoiled[1].read_bytes()
    spoiled[0].write_bytes(gzip.compress(b"no header"))
    spoiled[1].write_bytes(data[: len(data) // 2])  # its header is whole
    spoiled[2].write_bytes(b"")
    done = launcher.run(
        CONFIG,
        *TINY,
        f"--config.data.root={root}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.grid.spacing_mm={spacing}",
    )
    assert done.status == 1
    lines = done.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["error", str(path)] for path in spoiled]


def remove_contrast(root):
    path = root / "volumes" / "c2.nii.gz"
    write_nifti(path, np.ones((SIDE,) * 3, np.uint8), AFFINE)
    return path, "expected a volume with contrast"


def remove_volumes(root):
    shutil.rmtree(root / "volumes")
    return root / "volumes", "expected a folder with volumes"


def name_unknown_split(root):
    table = root / "cases.csv"
    table.write_text(table.read_text().replace("validation", "valid"))
    return table, "expected a split of train, validation, test, got 'valid'"


def leave_no_test(root):
    table = root / "cases.csv"
    table.write_text(table.read_text().replace("test", "train"))
    return ("expected at least one subject in the test split",)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(remove_contrast, id="no contrast"),
        pytest.param(remove_volumes, id="no volumes"),
        pytest.param(name_unknown_split, id="unknown split"),
        pytest.param(leave_no_test, id="no test case"),
    ],
)
def test_bad_data_is_one_line(launcher, cohort, tmp_path, spoil):
    root = Path(shutil.copytree(cohort, tmp_path / "data"))
    parts = spoil(root)
    argv = [CONFIG, *TINY, f"--config.data.root={root}", f"--workdir={tmp_path / 'run'}"]
    check_refusal(launcher.run(*argv), *parts)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        pytest.param([], ["--volumes: expected files"], id="no volumes"),
        pytest.param(["--volumes=no*.nii"], ["--volumes=no*.nii", "no such file"], id="none found"),
        pytest.param(["--volumes={0}/cases.csv"], ["cases.csv", "ends in .nii"], id="no volume"),
        pytest.param(["--format=csv", "--volumes={0}/volumes"], ["csv", "fcsv"], id="format"),
    ],
)
def test_a_bad_prediction_is_one_line(launcher, trained, cohort, tmp_path, argv, parts):
    argv = [argument.replace("{0}", str(cohort)) for argument in argv]
    common = ["--mode=predict", f"--workdir={trained}", f"--output={tmp_path}"]
    check_refusal(launcher.run(*common, *argv), *parts)
    assert not list(tmp_path.iterdir())


def test_two_inputs_of_one_name_are_refused(launcher, trained, cohort, tmp_path):
    shutil.copy(cohort / "volumes" / "c1.nii.gz", tmp_path)
    done = launcher.run(
        "--mode=predict",
        f"--workdir={trained}",
        f"--volumes={cohort / 'volumes'},{tmp_path}",
        f"--output={tmp_path / 'found'}",
    )
    check_refusal(done, tmp_path / "c1.nii.gz", "both would write c1")
    assert not (tmp_path / "found").exists()


def test_a_folder_of_volumes_is_predicted(launcher, trained, cohort, tmp_path):
    done = launcher.run(
        "--mode=predict",
        f"--workdir={trained}",
        f"--volumes={cohort / 'volumes'}",
        f"--output={tmp_path}",
    )
    assert done.status == 0 and done.err == ""
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"c{i}.mrk.json" for i in range(6)]  # no measurements: no face
    for i in (4, 5):  # as the evaluation found them, in a batch of another size
        found = read_landmarks(tmp_path / f"c{i}.mrk.json")
        for label, point in read_landmarks(trained / "predictions" / f"c{i}.mrk.json").items():
            np.testing.assert_allclose(found[label], point, rtol=0, atol=1e-3)


def test_copied_checkpoints_of_another_network(launcher, trained, cohort, tmp_path):
    for name in ("checkpoints", "data.json"):
        copy = shutil.copytree if (trained / name).is_dir() else shutil.copy
        copy(trained / name, tmp_path / name)
    flags = [flag.replace("(2,)", "(6,)") for flag in TINY] + ["--config.train.steps=6"]
    done = launcher.run(CONFIG, *flags, f"--config.data.root={cohort}", f"--workdir={tmp_path}")
    check_refusal(done, tmp_path / "checkpoints", "expected the network of this config", "shape")


def test_more_steps_go_on(launcher, trained, cohort, tmp_path):
    workdir = Path(shutil.copytree(trained, tmp_path / "longer"))
    argv = [CONFIG, *TINY, f"--config.data.root={cohort}", f"--workdir={workdir}"]
    done = launcher.run(*argv, "--config.train.steps=6")
    assert done.status == 0 and "going on from step 4 of 6" in done.out
    assert json.loads((workdir / "results.json").read_text())["steps"] == 6


def test_the_guess_by_hand(trained, cohort):
    """The mean place of the training cases, on grids that all begin at one place."""
    truth = [read_landmarks(cohort / "landmarks" / f"c{i}.mrk.json") for i in range(6)]
    guess = {label: np.mean([t[label] for t in truth[:3]], axis=0) for label in LABELS}
    off = [np.linalg.norm(t[label] - guess[label]) for t in truth[4:] for label in LABELS]
    results = json.loads((trained / "results.json").read_text())
    assert results["guess_d_mean_mm"] == pytest.approx(np.mean(off), abs=1e-4)


def test_check_draws_and_describes(launcher, cohort, tmp_path):
    argv = [CONFIG, *TINY, f"--config.data.root={cohort}", f"--workdir={tmp_path}"]
    done = launcher.run(*argv, "--mode=check")
    assert done.status == 0 and done.err == ""
    for text in ("6 cases of 6 subjects", "grid: 8³ at 3 mm", "test: 2 cases", "all 6 cases can"):
        assert text in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["check.png"]


def test_the_config_may_come_last(launcher, cohort, tmp_path):
    """config_flags alone would refuse an override before its file."""
    argv = ["--mode=check", *TINY, f"--config.data.root={cohort}", f"--workdir={tmp_path}"]
    for config in ([CONFIG], CONFIG.split("=")):
        done = launcher.run(*argv, *config)
        assert done.status == 0 and done.err == ""


def test_phantom_mode_writes_a_cohort(launcher, tmp_path):
    flags = ["--config.phantom.cases=1", "--config.phantom.spacing_mm=4"]
    done = launcher.run(CONFIG, *flags, "--mode=phantom", f"--output={tmp_path / 'cohort'}")
    assert done.status == 0 and done.err == ""
    assert len(list((tmp_path / "cohort" / "volumes").iterdir())) == 1


def test_help(launcher):
    done = launcher.run("--help")
    assert done.status == 0 and done.err == ""
    assert "python launch.py --config=configs/emd.py" in done.out and "--workdir" in done.out
