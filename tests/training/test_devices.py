"""The machine in words, and its memory."""

import platform
import subprocess
import sys

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's option")
def test_memory_is_reused():
    """Pages that the system has to clear, for buffers that are made and freed again and again."""
    code = """if True:
        import resource, sys
        from fetal_jax.training.devices import reuse_memory
        if sys.argv[1] == "reuse":
            reuse_memory()
        for round in range(4):
            if round == 1:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            buffers = [b"x" * 2**26 for _ in range(2)]
            del buffers
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    pages = [
        int(subprocess.check_output([sys.executable, "-c", code, how]))
        for how in ("return", "reuse")
    ]
    assert pages[0] > 6 * 2**26 / 2**16  # a page may have 64 KiB
    assert pages[1] < pages[0] / 10, pages
