"""From the values of a config to cases on the grid."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from noise_runs import LABELS, make_config

from fetal_jax.data import cases, from_config
from fetal_jax.data.placement import Placement
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import write_nifti
from fetal_jax.runs.config_table import check_config


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fetal_jax"


def make(root, **changes):
    return check_config(make_config(root, **changes))


def test_where_the_cache_is(cache, monkeypatch):
    assert from_config.find_cache() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert from_config.find_cache() == Path("/home/somebody/.cache/fetal_jax")


# ---- which data set ----


def test_the_data_set_of_a_root(noise_root):
    dataset = from_config.open_dataset(make(noise_root))
    assert dataset.root == noise_root and len(dataset.cases) == 11
    assert dataset.labels == LABELS


def test_a_choice_of_the_landmarks_in_its_order(noise_root):
    dataset = from_config.open_dataset(make(noise_root, **{"data.labels": ("nose", "L")}))
    assert dataset.labels == ("nose", "L")
    with pytest.raises(InputError, match="config.data.labels: expected landmarks of"):
        from_config.open_dataset(make(noise_root, **{"data.labels": ("chin",)}))


@pytest.fixture
def simulated(monkeypatch):
    """Roots that were simulated into; each becomes a data set without cases."""
    roots = []

    def write_cohort(root, *, progress, **settings):
        roots.append((Path(root), settings))
        root.mkdir(parents=True)
        (root / "cases.csv").write_text("case\n")

    monkeypatch.setattr(from_config.phantom_files, "write_cohort", write_cohort)
    monkeypatch.setattr(from_config, "read_dataset", lambda root, **_: Path(root))
    return roots


@pytest.mark.parametrize("root", ["", "  "])
def test_a_variable_that_is_not_set_is_no_data_set(simulated, root):
    """`--config.data.root=$DATA`: the phantom would be trained on in its place."""
    with pytest.raises(InputError, match="config.data.root: expected a folder or 'phantom', got"):
        from_config.open_dataset(make(root))
    assert not simulated


def test_the_phantom_is_written_once(cache, simulated, capsys):
    config = make("phantom", **{"phantom.cases": 3, "phantom.seed": 2})
    first, second = from_config.open_dataset(config), from_config.open_dataset(config)
    assert first == second and first.parent == cache
    ((root, settings),) = simulated
    assert root == first
    assert settings == dict(
        cases=3, seed=2, test_seed=1, spacing_mm=1.0, annotators=0, face="healthy"
    )
    assert capsys.readouterr().out.count("simulating 3 phantom faces, once, into") == 1


def test_another_phantom_has_a_folder_of_its_own(cache, simulated):
    changes = [
        {},
        {"phantom.cases": 4},
        {"phantom.spacing_mm": 2.0},
        {"phantom.seed": 1},
        {"phantom.test_seed": 2},
        {"phantom.face": "cleft"},
    ]
    roots = [from_config.open_dataset(make("phantom", **change)) for change in changes]
    assert len(set(roots)) == 6
    # what is no part of the phantom does not simulate it anew
    assert from_config.open_dataset(make("phantom", **{"seed": 9, "grid.side": 16})) == roots[0]


# ---- the grid ----


def test_what_the_grid_leaves_open_is_settled(noise_root):
    config = make(noise_root)
    resolved = from_config.resolve_grid(config, from_config.open_dataset(config), range(11))
    assert isinstance(resolved, FrozenConfigDict)
    assert (resolved.grid.side, resolved.grid.spacing_mm) == (8, 3.0)  # 24 mm in 8 voxels
    assert config.grid.spacing_mm == 0.0
    changed = resolved.to_dict()
    changed["grid"]["spacing_mm"] = 0.0
    assert changed == config.to_dict()


def test_what_is_done_to_a_volume(noise_root):
    changes = {"grid.spacing_mm": 2.5, "data.trust_missing_affine": True}
    found = from_config.read_preprocessing(make(noise_root, **changes))
    assert found == Preprocessing(8, 2.5, (0.5, 99.5), True)
    assert isinstance(found.percentiles, tuple)


def test_by_default_each_case_is_placed_once(noise_root):
    config = make(noise_root, **{"grid.spacing_mm": 3.0})
    prepared = from_config.prepare_cases(config, from_config.open_dataset(config), ())
    assert from_config.build_place(config, prepared) is None
    for grid in prepared.grids:
        np.testing.assert_allclose(grid.to_world(np.full(3, 3.5)), 0.0, atol=1e-9)
        assert grid.shape == (8, 8, 8) and grid.spacing_mm == 3.0


def test_a_placement_that_varies_is_asked_at_each_step(noise_root, monkeypatch):
    config = make(noise_root, **{"grid.spacing_mm": 3.0})
    prepared = from_config.prepare_cases(config, from_config.open_dataset(config), ())
    fixed = from_config.build_placement(from_config.read_preprocessing(config))
    monkeypatch.setattr(
        from_config, "build_placement", lambda _: Placement(fixed.place, varies=True)
    )
    volume, grid = from_config.build_place(config, prepared)(4, np.random.default_rng(0))
    np.testing.assert_array_equal(grid.affine, prepared.grids[4].affine)
    np.testing.assert_array_equal(volume.astype(np.float16), prepared.volumes[4])


@pytest.mark.parametrize("kept", [True, False])
def test_grids_are_kept_where_the_config_says_so(cache, noise_root, monkeypatch, kept):
    config = make(noise_root, **{"grid.spacing_mm": 3.0, "data.cache_grids": kept})
    dataset = from_config.open_dataset(config)
    first = from_config.prepare_cases(config, dataset, ())
    assert len(list(cache.glob("grids/*.grid"))) == (11 if kept else 0)
    if kept:
        monkeypatch.setattr(cases, "read_volume", None)  # nobody may read a voxel
    again = from_config.prepare_cases(config, dataset, ())
    np.testing.assert_array_equal(first.volumes, again.volumes)


def test_what_does_not_fit_into_memory_is_said(cache, noise_root, monkeypatch, capsys):
    monkeypatch.setattr(from_config.memory, "measure_free", lambda: 11 * 8**3 * 4)
    for dtype, keep, warned in (
        ("float16", False, False),
        ("float16", True, False),
        ("uint8", False, False),
    ):
        changes = {"grid.spacing_mm": 3.0, "data.cache_grids": keep, "data.grid_dtype": dtype}
        config = make(noise_root, **changes)
        prepared = from_config.prepare_cases(config, from_config.open_dataset(config), ())
        assert ("GiB of grids stay in memory" in capsys.readouterr().out) == warned
        assert prepared.volumes.dtype == (np.float32 if dtype == "uint8" else np.float16)
    monkeypatch.setattr(from_config.memory, "measure_free", lambda: 11 * 8**3 * 4 - 1)
    config = make(noise_root, **{"grid.spacing_mm": 3.0, "data.cache_grids": False})
    from_config.prepare_cases(config, from_config.open_dataset(config), ())
    assert "GiB of grids stay in memory" in capsys.readouterr().out


@pytest.fixture
def far_root(noise_root, tmp_path):
    """The cohort, with c9 in a volume of 40 mm and one of its landmarks 17 mm from the centre."""
    root = Path(copytree(noise_root, tmp_path / "far"))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -19.0
    voxels = np.random.default_rng(0).integers(0, 255, (20,) * 3, dtype=np.uint8)
    write_nifti(root / "volumes" / "c9.nii.gz", voxels, affine)
    points = {"L": np.array([17.0, 0, 0]), "R": np.zeros(3), "nose": np.ones(3)}
    for path in (root / "landmarks").glob("c9.*"):
        write_landmarks(path, points)
    return root


def test_a_grid_is_not_made_for_what_is_held_out(far_root, capsys):
    """Its volume is cut and its landmark cannot be found: that is said, and both are kept."""
    config = make(far_root)
    dataset = from_config.open_dataset(config)
    place = [case.name for case in dataset.cases].index("c9")
    fitted = [i for i in range(11) if i != place]
    resolved = from_config.resolve_grid(config, dataset, fitted)
    assert resolved.grid.spacing_mm == 3.0
    assert from_config.resolve_grid(config, dataset, range(11)).grid.spacing_mm == 5.0
    prepared = from_config.prepare_cases(resolved, dataset, [place])
    assert capsys.readouterr().out.splitlines() == [
        "warning: 1 volumes that are held out are longer than the grid's 24 mm: c9; what lies "
        "outside is not searched",
        "warning: landmarks outside the grid in 1 cases that are held out: c9; they cannot be "
        "found, and their errors count",
    ]
    assert prepared.present.all()
    np.testing.assert_allclose(prepared.points_mm[place, 0], [17, 0, 0])
    np.testing.assert_allclose(prepared.points_vox[place, 0], [3.5 + 17 / 3, 3.5, 3.5], rtol=1e-6)
    with pytest.raises(InputError, match="c9.*: expected landmarks inside the grid"):
        from_config.prepare_cases(resolved, dataset, [0])


# ---- the split ----


def test_the_split_in_words(noise_root):
    config = make(noise_root, **{"grid.spacing_mm": 3.0})
    dataset = from_config.open_dataset(config)
    splits = from_config.split_dataset(config, dataset)
    assert sorted(i for split in splits.values() for i in split) == list(range(11))
    counts = {split: len(indices) for split, indices in splits.items()}
    assert from_config.format_splits(config, dataset, splits) == (
        f"11 cases, 3 landmarks: {counts['train']} train, {counts['validation']} validation, "
        f"{counts['test']} test; grid 8³ at 3 mm"
    )
    other = from_config.split_dataset(make(noise_root, seed=5), dataset)
    assert other != splits and from_config.split_dataset(config, dataset) == splits
