"""What `pip install .` gives: a command that needs no checkout, from any folder.

Built with the setuptools that is there, so that no test needs a network.
"""

import os
import shutil
import subprocess
import sys

import pytest
from noise_runs import ROOT

PARTS = ("fetal_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
HIDDEN = ("SimpleITK", "nrrd", "itk", "pyvista", "vtk")  # of what requirements.txt does not install


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which a copy of the checkout was installed."""
    room = tmp_path_factory.mktemp("installed")
    source, target = room / "source", room / "target"
    source.mkdir()
    for name in (*PARTS, "requirements.txt"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *offline]
    done = subprocess.run(
        [*pip, "--target", target, "."], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    return target


@pytest.fixture
def run(installed, tmp_path):
    """run(*argv) -> (status, out, err) of the command, in a folder of its own."""

    def call(*argv, command=None):
        command = command or [sys.executable, installed / "bin" / "fetal_jax"]
        done = subprocess.run(
            [*command, *map(str, argv)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_name_from_any_folder(run, noise_root, tmp_path):
    """fine builds on emd; the page takes its style from the package."""
    argv = ("--config=fine", "--mode=agreement", f"--config.data.root={noise_root}")
    status, _, err = run(*argv, "--output=agreement")
    assert status == 0, err
    assert "<style>" in (tmp_path / "agreement" / "report" / "index.html").read_text()


def test_a_config_of_ones_own(run, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text(
        "from configs import emd\n\n\ndef get_config(recipe=''):\n"
        "    config = emd.get_config(recipe)\n    config.optim.lr = -2.0\n    return config\n"
    )
    status, _, err = run("--config=configs/mine.py:paper")
    assert (status, err) == (1, "error: config.optim.lr: expected more than 0, got -2.0\n")


def test_a_name_that_is_none(run):
    status, _, err = run("--config=edm")
    assert status == 1 and "the name of one: any_pose, ce, distance, dsnt, emd," in err


def test_the_command_says_what_it_is(run):
    status, out, _ = run("--help")
    assert status == 0 and "fetal_jax --config=emd" in out and "--mode:" in out


def test_nrrd_needs_nothing_else(installed, run, tmp_path):
    """Slicer's default is read by this package itself."""
    sitk = pytest.importorskip("SimpleITK")
    voxels = sitk.GetImageFromArray([[[1, 2, 3], [4, 5, 6]]])
    sitk.WriteImage(voxels, tmp_path / "scan.nrrd", useCompression=True)
    code = (
        f"import sys\nfor name in {HIDDEN}: sys.modules[name] = None\n"
        "import fetal_jax\nfrom pathlib import Path\n"
        "from fetal_jax.io.volumes import read_volume\n"
        "print(fetal_jax.__file__, read_volume(Path('scan.nrrd')).voxels.tolist())"
    )
    status, out, err = run(command=[sys.executable, "-c", code])
    assert status == 0, err
    file, _, read = out.strip().partition(" ")
    assert file == str(installed / "fetal_jax" / "__init__.py")
    assert read == "[[[1], [4]], [[2], [5]], [[3], [6]]]"
