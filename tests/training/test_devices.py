"""The machine in words, and its memory."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fetal_jax.training import devices


def test_devices_in_words():
    assert devices.describe_devices() == "4 cpu devices"


def test_what_a_run_computes_on_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(devices, "find_idle_accelerator", lambda: "it has a GPU")
    devices.print_devices()
    assert capsys.readouterr().out == "running on 4 cpu devices\nwarning: it has a GPU\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["/dev/nvidia0"], "NVIDIA GPU that JAX cannot use"),
        (["/dev/accel0"], "TPU that JAX cannot use"),
        ([], ""),
    ],
)
def test_an_accelerator_that_lies_idle(monkeypatch, files, words):
    def list_files(pattern):
        return [file for file in files if file.startswith(pattern.split("[")[0])]

    monkeypatch.setattr(devices.glob, "glob", list_files)
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    found = devices.find_idle_accelerator()
    assert words in found and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("kind", "devices_", "processes", "words"),
    [
        ("NVIDIA H100", 1, 1, "1 NVIDIA H100 device"),
        ("TPU v4", 16, 4, "16 TPU v4 devices in 4 processes"),
    ],
)
def test_other_machines_in_words(monkeypatch, kind, devices_, processes, words):
    machine = [SimpleNamespace(device_kind=kind)] * devices_
    monkeypatch.setattr(devices.jax, "devices", lambda: machine)
    monkeypatch.setattr(devices.jax, "process_count", lambda: processes)
    assert devices.describe_devices() == words


def test_memory_is_kept(monkeypatch):
    """glibc's options, by the numbers of its malloc.h."""
    asked = {}
    libc = SimpleNamespace(mallopt=lambda option, value: asked.update({option: value}))
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: libc)
    devices.reuse_memory()
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    assert asked == {trim_threshold: -1, mmap_max: 0, arena_max: 1}


def test_a_system_without_these_options_is_left_alone(monkeypatch):
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: SimpleNamespace())
    devices.reuse_memory()


def test_importing_the_package_starts_no_device():
    """Else jax.distributed comes too late, and a forked process hangs in its first compilation."""
    code = """if True:
        import importlib, pkgutil
        import fetal_jax
        from jax._src import xla_bridge
        for module in pkgutil.walk_packages(fetal_jax.__path__, "fetal_jax."):
            importlib.import_module(module.name)
            assert not xla_bridge.backends_are_initialized(), module.name
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
