"""Four virtual CPU devices for every test, and no silent change of rank or type.

The tests' processes share a folder: programs that are compiled and runs that are made once.
"""

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import face_runs
import jax
import noise_runs
import numpy as np
import pytest
from absl.testing import flagsaver
from compilation import QUICK

from fetal_jax import cli
from fetal_jax.data.case_table import Case
from fetal_jax.data.cases import PreparedCases
from fetal_jax.geometry import align_grid
from fetal_jax.modes import crossval

if "PYTEST_XDIST_WORKER" not in os.environ:  # inherited by the workers, and by what they start
    _shared = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = _shared.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_shared.name}/xla"
SHARED = Path(os.environ["XDG_CACHE_HOME"])
# inherited too; `XLA_FLAGS= python -m pytest` compiles every program as a user's is
os.environ.setdefault("XLA_FLAGS", QUICK)
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def _make_prepared(points_vox, *, side=8, spacing_mm=2.0, completed=(), subjects=None, seed=0):
    """Cases c0, c1, ... of noise, with landmarks at `points_vox` [N, L, 3]; a NaN is absent.

    The grid of case n begins at (10 n, 0, -5) mm. `completed` holds the (case, landmark) that are
    there but not visible.
    """
    points_vox = np.asarray(points_vox, np.float64)
    n, _, _ = points_vox.shape
    grids = tuple(
        align_grid((side,) * 3, spacing_mm, np.array([10.0 * i, 0.0, -5.0])) for i in range(n)
    )
    present = np.isfinite(points_vox).all(axis=-1)
    visible = present.copy()
    for place in completed:
        visible[place] = False
    paths = [(Path(f"c{i}.nii.gz"), Path(f"c{i}.mrk.json")) for i in range(n)]
    subjects = subjects or [f"s{i}" for i in range(n)]
    return PreparedCases(
        tuple(Case(f"c{i}", *paths[i], subject=subjects[i]) for i in range(n)),
        grids,
        np.random.default_rng(seed).random((n, side, side, side)).astype(np.float16),
        np.stack([points_vox[i] * spacing_mm + [10.0 * i, 0.0, -5.0] for i in range(n)]),
        np.where(present[..., None], points_vox, 0.0).astype(np.float32),
        present,
        visible,
        present.copy(),
        np.full(present.shape, np.nan),
        np.full(points_vox.shape, np.nan),
    )


@pytest.fixture(scope="session")
def make_prepared():
    return _make_prepared


def _make_once(name: str, make: Callable[[Path], None]) -> Path:
    """SHARED/name, made by whichever process comes first."""
    folder = SHARED / name
    with (SHARED / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = SHARED / f"{name}.unfinished"
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def make_once():
    return _make_once


@pytest.fixture(scope="session")
def noise_root():
    """A data set: nine scans of eight children at site a, two of site b."""
    return _make_once("noise", noise_runs.write_cohort)


@pytest.fixture(scope="session")
def heads_root():
    """A data set of simple heads with the landmarks of a face; a test that changes it copies it."""
    return _make_once("heads", face_runs.write_cohort)


@pytest.fixture(scope="session")
def noise_crossval(noise_root):
    """The folder of a finished cross-validation; a test that changes it copies it."""

    def make(workdir):
        crossval.run_crossval(noise_runs.make_config(noise_root), workdir)

    return _make_once("noise-crossval", make)


class Launched(NamedTuple):
    """What a command ended in."""

    status: int
    out: str
    err: str


@pytest.fixture
def launch(capsys, monkeypatch):
    """launch(*argv) is `python launch.py ARGV` in this process."""

    def run(*argv) -> Launched:
        argv = ["launch.py", *map(str, argv)]
        monkeypatch.setattr(sys, "argv", argv)  # where config_flags looks
        capsys.readouterr()
        with flagsaver.flagsaver():
            try:
                status = cli.main(argv)
            except SystemExit as end:
                status = end.code
        return Launched(status, *capsys.readouterr())

    return run


@pytest.fixture
def refuse(launch):
    """refuse(*argv) is the one line with which the launcher refuses a command."""

    def run(*argv) -> str:
        status, _, err = launch(*argv)
        lines = err.splitlines()
        assert status == 1 and len(lines) == 1 and lines[0].startswith("error: "), err
        return lines[0].removeprefix("error: ")

    return run
