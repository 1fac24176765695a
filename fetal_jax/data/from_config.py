"""From the values of a config to cases on the grid: the data set, its split, its grid."""

import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax import growth, landmarks, phantom
from fetal_jax.data import cases, folds, memory, phantom_files, placement
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset, read_dataset, select_landmarks
from fetal_jax.data.placement import Placement
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.tables import shorten
from fetal_jax.progress import Countdown

PHANTOM = "phantom"  # as config.data.root


def find_cache() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/fetal_jax or ~/.cache/fetal_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fetal_jax"


def choose_cache(config: ConfigDict) -> Path | None:
    """Where prepared grids and unpacked volumes are kept; None where the config wants none."""
    return find_cache() / "grids" if config.data.cache_grids else None


def open_dataset(config: ConfigDict, *, need_volumes: bool = True) -> Dataset:
    """The data set of config.data.root, or the phantom cohort, which is written on first use.

    Args:
      need_volumes: of `read_dataset`.
    """
    root = find_root(config) or _find_phantom(config)
    dataset = read_dataset(
        root,
        split_csv=os.path.expanduser(config.data.split) or None,
        coordinate_system=config.data.coordinate_system or None,
        need_volumes=need_volumes,
    )
    labels = tuple(config.data.labels)
    try:
        return select_landmarks(dataset, labels) if labels else dataset
    except ValueError as error:
        raise InputError(f"config.data.labels: {error}") from None


def find_root(config: ConfigDict) -> str | None:
    """The folder of config.data.root; None where it is the phantom cohort.

    Raises:
      InputError: it is empty, as after the name of a variable that is not set.
    """
    root = config.data.root.strip()
    if not root:
        raise InputError(f"config.data.root: expected a folder or {PHANTOM!r}, got an empty name")
    return None if root == PHANTOM else os.path.expanduser(root)


def _find_phantom(config: ConfigDict) -> Path:
    """The folder of the phantom cohort of config.phantom, written where it is not there yet."""
    settings = config.phantom.to_dict()
    # another simulator makes another cohort
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    sources = [
        *sorted(Path(phantom.__file__).parent.glob("*.py")),
        *(Path(module.__file__) for module in (growth, landmarks, phantom_files)),
    ]
    for source in sources:
        digest.update(source.read_bytes())
    root = find_cache() / f"phantom-{digest.hexdigest()[:12]}"
    if (root / "cases.csv").exists():
        return root
    print(f"simulating {settings['cases']} phantom faces, once, into {root}")
    write_phantom(config, root)
    return root


def write_phantom(config: ConfigDict, root: Path) -> None:
    """Write the phantom cohort of config.phantom into a folder, or finish it."""
    countdown = Countdown("phantom", config.phantom.cases)
    phantom_files.write_cohort(
        root, **config.phantom.to_dict(), progress=lambda done, _: countdown.show(done)
    )
    countdown.clear()


def resolve_grid(config: ConfigDict, dataset: Dataset, fitted: Collection[int]) -> FrozenConfigDict:
    """The config with what config.grid leaves to the data filled in.

    Args:
      fitted: of `placement.propose_grid`: all cases but those that are held out.
    """
    side, spacing_mm = placement.propose_grid(
        dataset,
        fitted,
        side=config.grid.side,
        spacing_mm=config.grid.spacing_mm,
        trust_missing_affine=config.data.trust_missing_affine,
    )
    resolved = ConfigDict(config.to_dict())
    resolved.grid.side, resolved.grid.spacing_mm = side, spacing_mm
    return FrozenConfigDict(resolved)


def read_preprocessing(config: ConfigDict) -> Preprocessing:
    """What the config does to a volume, once its grid is resolved."""
    return Preprocessing(
        config.grid.side,
        config.grid.spacing_mm,
        tuple(config.grid.percentiles),
        config.data.trust_missing_affine,
    )


def build_placement(preprocessing: Preprocessing) -> Placement:
    """Where the network looks in a volume."""
    return placement.centre_placement(side=preprocessing.side, spacing_mm=preprocessing.spacing_mm)


def prepare_cases(config: ConfigDict, dataset: Dataset, held_out: Collection[int]) -> PreparedCases:
    """Every case on its grid, from the cache where it has been made before.

    Args:
      held_out: indices of the cases that only test; where the grid does not hold them, that is
        printed.
    """
    preprocessing, cache = read_preprocessing(config), choose_cache(config)
    count = len(dataset.cases)
    if cache is None:
        _warn_of_memory(count * preprocessing.side**3 * np.dtype(config.data.grid_dtype).itemsize)
    countdown = Countdown("preparing", count)
    prepared = cases.prepare_dataset(
        dataset,
        build_placement(preprocessing),
        preprocessing,
        held_out=held_out,
        coordinate_system=config.data.coordinate_system or None,
        cache=cache,
        dtype=config.data.grid_dtype,
        begin=count * jax.process_index() // jax.process_count(),
        progress=countdown.show,
    )
    countdown.clear()
    memory.give_back()
    _warn_of_held_out(dataset, prepared, held_out, preprocessing)
    return prepared


def _warn_of_memory(needed: int) -> None:
    """Print that grids which are not kept on disk do not fit into memory."""
    if needed > 0.5 * (free := memory.measure_free()):
        print(
            f"warning: {needed / 2**30:.2g} GiB of grids stay in memory, of which "
            f"{free / 2**30:.2g} GiB are free; with --config.data.cache_grids=True they would not"
        )


def _warn_of_held_out(dataset, prepared: PreparedCases, held_out, asked: Preprocessing) -> None:
    cut = placement.find_cut_cases(
        [dataset.cases[i] for i in held_out],
        side=asked.side,
        spacing_mm=asked.spacing_mm,
        trust_missing_affine=asked.trust_missing_affine,
    )
    if cut:
        print(
            f"warning: {len(cut)} volumes that are held out are longer than the grid's "
            f"{asked.side * asked.spacing_mm:.0f} mm: {shorten(cut)}; what lies outside is not "
            "searched"
        )
    if outside := prepared.find_outside(held_out):
        print(
            f"warning: landmarks outside the grid in {len(outside)} cases that are held out: "
            f"{shorten(outside)}; they cannot be found, and their errors count"
        )


def build_place(config: ConfigDict, prepared: PreparedCases) -> Callable | None:
    """`cases.place_anew` of the training cases, where each step has grids of its own; else None."""
    preprocessing = read_preprocessing(config)
    chosen = build_placement(preprocessing)
    if not chosen.varies:
        return None
    return cases.place_anew(prepared, chosen, preprocessing, cache=choose_cache(config))


def split_dataset(config: ConfigDict, dataset: Dataset) -> dict[str, list[int]]:
    """Indices of the cases of each split."""
    return folds.assign_splits(
        dataset.cases,
        seed=config.seed,
        test_folds=config.data.test_folds,
        validation_share=config.data.validation_share,
    )


def format_splits(config: ConfigDict, dataset: Dataset, splits: dict[str, list[int]]) -> str:
    """How many cases train and test, on which grid, in a line."""
    return (
        f"{len(dataset.cases)} cases, {len(dataset.labels)} landmarks: "
        + ", ".join(f"{len(splits[s])} {s}" for s in folds.SPLITS)
        + f"; grid {config.grid.side}³ at {config.grid.spacing_mm:g} mm"
    )
