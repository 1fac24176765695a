"""Flags to modes: what each mode is called with, and each mistake in one line."""

import gzip
import importlib
import inspect
import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from noise_runs import AFFINE, ROOT, SIDE, make_flags

from fetal_jax import cli
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_fcsv
from fetal_jax.io.volumes import write_nifti
from fetal_jax.runs.config_table import KEYS

EMD = f"--config={ROOT}/configs/emd.py"


# ---- what a mode is called with ----


@pytest.mark.parametrize("name", cli.MODES)
def test_a_mode_is_a_function_of_its_arguments(name):
    run = getattr(importlib.import_module(f"fetal_jax.modes.{name}"), f"run_{name}")
    assert len(inspect.signature(run).parameters) == len(cli.MODES[name].arguments)
    assert set(cli.MODES[name].arguments) <= cli.ARGUMENTS.keys()


@pytest.fixture
def called(launch, monkeypatch):
    """called(*argv) is what the mode's function would be called with."""

    def run(*argv):
        found = []
        for name in cli.MODES:
            module = importlib.import_module(f"fetal_jax.modes.{name}")
            monkeypatch.setattr(
                module, f"run_{name}", lambda *a, name=name: found.append((name, a))
            )
        done = launch(*argv)
        assert done.status == 0 and done.err == "", done
        return found

    return run


@pytest.mark.parametrize(
    ("argv", "name", "arguments"),
    [
        pytest.param(["--mode=evaluate", "--workdir=a"], "evaluate", (Path("a"),), id="evaluate"),
        pytest.param(["--mode=report", "--workdir=a"], "report", (Path("a"),), id="report"),
        pytest.param(
            ["--mode=predict", "--workdir=a", "--volumes=b,c/*.nii"],
            "predict",
            (Path("a"), ["b", "c/*.nii"], Path("a/found"), "mrk.json", False),
            id="predict",
        ),
        pytest.param(
            ["--mode=predict", "--workdir=a", "--volumes=b", "--output=d", "--format=fcsv"],
            "predict",
            (Path("a"), ["b"], Path("d"), "fcsv", False),
            id="predict elsewhere",
        ),
        pytest.param(
            ["--mode=export", "--workdir=a"],
            "export",
            (Path("a"), Path("a/model.jax_export"), "jax_export"),
            id="export",
        ),
        pytest.param(
            ["--mode=export", "--workdir=a", "--format=onnx"],
            "export",
            (Path("a"), Path("a/model.onnx"), "onnx"),
            id="export as ONNX",
        ),
        pytest.param(
            ["--mode=compare", "--runs=a,b"],
            "compare",
            (["a", "b"], Path("runs/comparison")),
            id="compare",
        ),
        pytest.param(
            ["--mode=agreement", "--workdir=a", "--from=b"],
            "agreement",
            (None, Path("a"), Path("b"), Path("a/agreement")),
            id="agreement",
        ),
    ],
)
def test_modes_that_need_no_config(called, argv, name, arguments):
    assert called(*argv) == [(name, arguments)]


@pytest.mark.parametrize(
    ("argv", "name", "rest"),
    [
        pytest.param([EMD], "train", (Path("runs/emd"),), id="the default"),
        pytest.param([f"{EMD}:paper"], "train", (Path("runs/emd-paper"),), id="recipe"),
        pytest.param([EMD, "--workdir=x/y"], "train", (Path("x/y"),), id="workdir"),
        pytest.param([EMD, "--mode=check"], "check", (Path("runs/emd"),), id="check"),
        pytest.param(
            [f"{EMD}:paper", "--mode=crossval"],
            "crossval",
            (Path("runs/emd-paper-crossval"),),
            id="crossval",
        ),
        pytest.param(
            [EMD, "--mode=sweep", "--vary=a=1", "--vary=b=2,3", "--each=crossval"],
            "sweep",
            (Path("runs/emd-sweep"), ["a=1", "b=2,3"], "crossval"),
            id="sweep",
        ),
        pytest.param(
            [EMD, "--mode=phantom", "--output=there"], "phantom", (Path("there"),), id="phantom"
        ),
    ],
)
def test_modes_of_a_config(called, argv, name, rest):
    ((found, (config, *others)),) = called(*argv, "--config.optim.lr=0.25")
    assert (found, tuple(others)) == (name, rest)
    assert config.optim.lr == 0.25 and config.loss.name == "emd"


def test_agreement_of_a_config(called):
    ((_, (config, *rest)),) = called(EMD, "--mode=agreement", "--config.data.root=there")
    assert config.data.root == "there" and rest == [None, None, Path("runs/agreement")]


def test_the_config_may_come_last(called):
    """config_flags alone would refuse an override before its file."""
    for config in ([EMD], EMD.split("=", 1)):
        ((_, (config, _)),) = called("--mode=check", "--config.grid.side=24", *config)
        assert config.grid.side == 24


def test_one_launch_leaves_nothing_to_the_next(called):
    called(EMD, "--config.seed=7", "--workdir=elsewhere")
    assert called(EMD)[0][1][0].seed == 0 and called(EMD)[0][1][1] == Path("runs/emd")


# ---- what the program itself says ----


def test_help(launch, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "what launch.py says of itself")
    done = launch("--help")
    assert done.status == 0 and done.err == ""
    assert done.out.startswith("what launch.py says of itself")
    for flag in ("--config", "--mode", "--workdir", "--[no]helpconfig"):
        assert f"{flag}:" in done.out


def test_help_for_the_config_needs_none(launch):
    done = launch("--helpconfig")
    assert done.status == 0 and done.err == ""
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == [f"--config.{name}" for name in KEYS]
    for line, key in zip(lines, KEYS.values(), strict=True):
        assert key.meaning in line and key.expected in line


def test_several_problems_are_several_lines(launch, monkeypatch):
    def run(*_):
        raise InputError("a.nii: expected this, got that", "b.nii: expected more, got less")

    monkeypatch.setattr("fetal_jax.modes.report.run_report", run)
    done = launch("--mode=report", "--workdir=a")
    assert done.status == 1 and done.err.splitlines() == [
        "error: a.nii: expected this, got that",
        "error: b.nii: expected more, got less",
    ]


def test_a_stopped_run_says_how_to_go_on(launch, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fetal_jax.modes.train.run_train", run)
    done = launch(EMD)
    assert done.status == 130 and "the same command goes on" in done.err


def test_a_fault_of_the_program_is_a_traceback(launch, monkeypatch):
    def run(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("fetal_jax.modes.report.run_report", run)
    with pytest.raises(ZeroDivisionError):
        launch("--mode=report", "--workdir=a")


# ---- each mistake: one line, status 1 ----


@pytest.mark.parametrize("argument", ["--config.seed=3", "--config.optm.lr=1", "-config.seed=3"])
def test_a_key_without_its_config(argument, launch):
    done = launch("--workdir=a", argument)
    assert done.status == 1
    line = f"{argument}: expected --config too, as --config=fine, whose key this changes"
    assert done.err.strip() == f"error: {line}"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        pytest.param(["--config.optm.lr=1"], ["got config.optm", "is config.optim"], id="section"),
        pytest.param(["--config.optim.lrr=1"], ["the nearest is config.optim.lr"], id="key"),
        pytest.param(["--config.optim.lr=abc"], ["lr", "abc"], id="a word for a number"),
        pytest.param(["--config.train.steps=1.5"], ["steps", "1.5"], id="half a step"),
        pytest.param(["--config.augment.on=maybe"], ["augment.on", "maybe"], id="no boolean"),
        pytest.param(["--wrkdir=x"], ["wrkdir", "workdir"], id="unknown flag"),
        pytest.param(["--mode=trian"], ["trian", "train"], id="unknown mode"),
        pytest.param(["train"], ["expected flags", "'train'"], id="no flag"),
        pytest.param(["--config=no.py"], ["--config=no.py: expected a config file"], id="file"),
        pytest.param([f"{EMD}:papr"], [":papr"], id="recipe"),
        pytest.param(["--config.data.split=none.csv"], ["none.csv"], id="missing split table"),
        pytest.param(
            ["--config.data.labels=('nose','chin')"],
            ["config.data.labels: expected landmarks of", "got chin", "it has L, R, nose"],
            id="a landmark that is not there",
        ),
        pytest.param(["--config.train.batch=6"], ["multiple of the 4 devices, got 6"], id="batch"),
        pytest.param(
            ["--config.devices.depth=3"], ["divisor of the 4 devices", "got 3"], id="depth"
        ),
        pytest.param(
            ["--mode=crossval", "--config.crossval.folds=9"],
            ["config.crossval: expected at most one fold for each of the 8 subjects", "got 9"],
            id="more folds than subjects",
        ),
        pytest.param(
            ["--mode=crossval", "--config.crossval.external_site=west"],
            ["config.crossval: expected a site", "got 'west'"],
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
        pytest.param(
            ["--mode=agreement", "--from=nowhere"],
            ["nowhere: expected a folder of landmark files, got no such folder"],
            id="no found files",
        ),
        pytest.param(
            ["--mode=agreement", "--workdir=nowhere"],
            ["nowhere: expected a finished run, with results.json, got none"],
            id="no run to be an observer",
        ),
        pytest.param(["--mode=phantom"], ["expected --output, a folder"], id="no output"),
        pytest.param(
            ["--mode=export", "--workdir=a", "--format=fcsv"],
            ["--format=fcsv: expected jax_export or onnx for --mode=export, got fcsv"],
            id="the format of another mode",
        ),
        pytest.param(
            ["--mode=check", "--distributed"],
            ["--mode=check: expected one process, or a mode of train,"],
            id="a mode of one process",
        ),
        pytest.param(
            ["--coordinator=here:1", "--processes=2"],
            ["--processes=N and --process=0 to N-1, got --processes=2 --process=-1"],
            id="which process",
        ),
    ],
)
def test_a_bad_command_is_one_line(refuse, noise_root, tmp_path, argv, parts):
    known = [*make_flags(noise_root), f"--workdir={tmp_path / 'run'}"]
    keys = tuple(argument.split("=")[0] + "=" for argument in argv)
    line = refuse(*(flag for flag in known if not flag.startswith(keys)), *argv)
    for part in parts:
        assert part in line
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        *((m, "--config") for m in ("train", "check", "crossval", "sweep", "phantom", "agreement")),
        *((mode, "--workdir") for mode in ("evaluate", "predict", "report", "export")),
    ],
)
def test_what_a_mode_needs_is_asked_for(refuse, mode, word):
    assert refuse(f"--mode={mode}").startswith(f"--mode={mode}: expected {word}, ")


# ---- bad data: the file in one line ----

VOLUME, MARKUP = "volumes/c1.nii.gz", "landmarks/c1.mrk.json"


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
    write_fcsv(path, read_landmarks(root / MARKUP))
    (root / MARKUP).unlink()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "CoordinateSystem" not in line))


def truncate(root):
    path = root / VOLUME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_contrast(root):
    write_nifti(root / VOLUME, np.ones((SIDE,) * 3, np.uint8), AFFINE)


def remove_landmarks(root):
    for path in (root / "landmarks").glob("c1.*"):
        path.unlink()


def put_in_split(split, *cases):
    def write(root):
        table = root / "cases.csv"
        header, *rows = table.read_text().splitlines()
        rows = [row + split if row.split(",")[0] in cases else row + "train" for row in rows]
        table.write_text("\n".join([header, *rows]) + "\n")

    return write


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        pytest.param(shutil.rmtree, ["no such folder"], id="no folder"),
        pytest.param(
            lambda r: shutil.rmtree(r / "volumes"), ["expected a folder with volumes"], id="empty"
        ),
        pytest.param(remove_landmarks, ["c1.nii.gz"], id="no landmark file"),
        pytest.param(
            lambda r: (r / "landmarks.csv").write_text("label\nL\nnose\n"),
            ["landmarks.csv", "R"],
            id="label not in landmarks.csv",
        ),
        pytest.param(truncate, ["c1.nii.gz"], id="truncated"),
        pytest.param(
            lambda r: edit_nifti(r / VOLUME, as_4d), ["c1.nii.gz: expected one volume"], id="4D"
        ),
        pytest.param(lambda r: edit_nifti(r / VOLUME, with_nan), ["c1.nii.gz"], id="NaN"),
        pytest.param(lambda r: edit_nifti(r / VOLUME, singular), ["c1.nii.gz"], id="singular"),
        pytest.param(
            lambda r: edit_nifti(r / VOLUME, disagreeing), ["c1.nii.gz"], id="sform and qform"
        ),
        pytest.param(remove_contrast, ["c1.nii.gz: expected a volume with contrast"], id="flat"),
        pytest.param(forget_axes, ["c1.fcsv"], id="fcsv with no system"),
        pytest.param(lambda r: edit_markup(r / MARKUP, use_metres), ["c1.mrk.json"], id="metres"),
        pytest.param(lambda r: edit_markup(r / MARKUP, double), ["c1.mrk.json"], id="twice"),
        pytest.param(
            lambda r: edit_markup(r / MARKUP, move_out),
            ["c1.mrk.json: expected landmarks inside the volume"],
            id="outside the volume",
        ),
        pytest.param(
            put_in_split("valid", "c1"),
            ["cases.csv", "expected a split of train, validation, test, got 'valid'"],
            id="unknown split",
        ),
        pytest.param(
            put_in_split("train"), ["expected at least one subject in the test"], id="no test case"
        ),
    ],
)
def test_bad_data_is_one_line(refuse, noise_root, tmp_path, spoil, parts):
    root = Path(shutil.copytree(noise_root, tmp_path / "data"))
    spoil(root)
    line = refuse(*make_flags(root), f"--workdir={tmp_path / 'run'}")
    for part in parts:
        assert part in line
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("spacing", [0.0, 4.0])
def test_all_bad_files_are_listed_at_once(launch, noise_root, tmp_path, spacing):
    root = Path(shutil.copytree(noise_root, tmp_path / "data"))
    spoiled = [root / "volumes" / f"c{i}.nii.gz" for i in (0, 2, 4)]
    data = spoiled[1].read_bytes()
    spoiled[0].write_bytes(gzip.compress(b"no header"))
    spoiled[1].write_bytes(data[: len(data) // 2])  # its header is whole
    spoiled[2].write_bytes(b"")
    flags = make_flags(root, **{"grid.spacing_mm": spacing})
    done = launch(*flags, f"--workdir={tmp_path / 'run'}")
    assert done.status == 1
    lines = done.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["error", str(path)] for path in spoiled]


def test_all_bad_values_are_listed_at_once(launch, noise_root, tmp_path):
    changes = {"log.every": 0, "train.steps": -1, "grid.side": -8}
    done = launch(*make_flags(noise_root, **changes), f"--workdir={tmp_path}")
    assert done.status == 1
    expected = {
        f"config.{key}: expected {KEYS[key].expected}, got {changes[key]}" for key in changes
    }
    assert {line.removeprefix("error: ") for line in done.err.splitlines()} == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "a/b.npz"), "a/b.npz: No space left on device"),
        (PermissionError(13, "Permission denied", "run"), "run: Permission denied"),
        (FileExistsError(17, "File exists", "runs"), "runs: File exists"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
    ],
)
def test_a_write_that_fails_is_one_line(launch, monkeypatch, tmp_path, error, line):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("fetal_jax.modes.report.run_report", fail)
    (tmp_path / "run").mkdir()
    done = launch("--mode=report", f"--workdir={tmp_path}/run")
    assert done.status == 1
    expected = (
        f"error: {line}; once that is mended, the same command goes on: what was finished stays\n"
    )
    assert done.err == expected


def test_a_file_where_the_run_s_folder_should_be_is_one_line(launch, noise_root, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = launch(*make_flags(noise_root), f"--workdir={tmp_path}/file/run")
    assert done.status == 1 and done.err.count("\n") == 1 and f"{tmp_path}/file" in done.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_home_folder_in_a_flag_is_meant(called, monkeypatch):
    """A shell leaves ~ alone behind =."""
    monkeypatch.setenv("HOME", "/home/of")
    flags = ["--mode=predict", "--workdir=~/run", "--volumes=~/scans", "--output=~/found"]
    ((_, arguments),) = called(*flags)
    assert arguments[:3] == (Path("/home/of/run"), ["/home/of/scans"], Path("/home/of/found"))


def test_a_comma_in_a_name_that_exists_separates_nothing(called, tmp_path, monkeypatch):
    """As in the folders that a sweep names; a flag may be given twice."""
    monkeypatch.chdir(tmp_path)
    for name in ("optim.lr=0.1,train.batch=4", "b"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
    sweep = "sweep/optim.lr=0.1,train.batch=4"
    ((_, arguments),) = called("--mode=compare", f"--runs={sweep},sweep/b", "--runs=c,d")
    assert arguments[0] == [sweep, "sweep/b", "c", "d"]
