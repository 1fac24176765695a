"""A config is found by its name and by its path, and a name that is none is one line."""

import importlib
import sys
from pathlib import Path

import pytest
from noise_runs import ROOT

from fetal_jax import config_files
from fetal_jax.errors import InputError

FOLDER = ROOT / "configs"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("emd", f"{FOLDER}/emd.py"),
        ("emd:paper", f"{FOLDER}/emd.py:paper"),
        (f"{FOLDER}/emd.py", f"{FOLDER}/emd.py"),
        (f"{FOLDER}/emd.py:paper", f"{FOLDER}/emd.py:paper"),
    ],
)
def test_a_name_and_a_path(given, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find_config(given) == found


def test_a_file_of_ones_own_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emd").touch()
    assert config_files.find_config("emd") == "emd"


@pytest.mark.parametrize("given", ["edm", "configs/mine.py", "edm:paper", "", ".", "../emd"])
def test_what_is_neither_is_refused_with_the_names(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="expected a config file, or the name of one: ") as refused:
        config_files.find_config(given)
    (line,) = refused.value.problems
    assert line.startswith(f"--config={given}: ")
    assert "any_pose, ce, distance, dsnt, emd, fetal_mri, fine" in line


@pytest.mark.parametrize("argv", [["--config=edm"], ["--config", "edm"], ["-config=edm"]])
def test_the_launcher_refuses_a_name_that_is_none(refuse, argv):
    assert refuse(*argv, "--config.seed=1").startswith("--config=edm: expected a config file, or")


def test_the_launcher_takes_the_last_of_two(refuse):
    line = refuse("--config=ce", "--config.optim.lr=-1.0", "--config=rpn:papr")
    assert ":papr" in line


@pytest.mark.parametrize("other", ["none", "somebody's"])
def test_a_config_may_build_on_ours_where_python_finds_none(other, tmp_path, monkeypatch):
    """As where the program is installed: no folder configs/ on Python's path, or another one."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    if other != "none":
        (tmp_path / "configs").mkdir()
    elsewhere = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *elsewhere])
    importlib.invalidate_caches()
    config_files.share_configs()
    monkeypatch.setitem(sys.modules, "configs", sys.modules["configs"])  # put back afterwards
    assert importlib.import_module("configs.fine").get_config().aligned.on


def test_in_a_checkout_python_finds_them_itself(monkeypatch):
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    config_files.share_configs()
    assert "configs" not in sys.modules
