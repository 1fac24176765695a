"""Four virtual CPU devices for every test, and no silent broadcasting between ranks."""

import os
import tempfile
from pathlib import Path

import jax
import noise_runs
import numpy as np
import pytest

from fetal_jax.data.case_table import Case
from fetal_jax.data.cases import PreparedCases
from fetal_jax.geometry import align_grid
from fetal_jax.modes import crossval

jax.config.update("jax_num_cpu_devices", 4)
# one program, compiled for many tests; and nothing of theirs in the user's own cache
_cache = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _cache.name
jax.config.update("jax_compilation_cache_dir", f"{_cache.name}/xla")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_numpy_rank_promotion", "raise")


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
        np.full(present.shape, np.nan),
    )


@pytest.fixture(scope="session")
def make_prepared():
    return _make_prepared


@pytest.fixture(scope="session")
def noise_root(tmp_path_factory):
    """A data set: nine scans of eight children at site a, two of site b."""
    root = tmp_path_factory.mktemp("cohort")
    noise_runs.write_cohort(root)
    return root


@pytest.fixture(scope="session")
def noise_crossval(noise_root, tmp_path_factory):
    """The folder of a finished cross-validation; a test that changes it copies it."""
    workdir = tmp_path_factory.mktemp("runs") / "emd-crossval"
    crossval.run_crossval(noise_runs.make_config(noise_root), workdir)
    return workdir
