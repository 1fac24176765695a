"""From the values of a config to cases on the grid: the data set, its split, its grid."""

import hashlib
import os
import time
from pathlib import Path

import ml_collections

from fetal_jax import growth, phantom
from fetal_jax.data import folds, phantom_files, preprocess
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset, read_dataset, select_landmarks
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.progress import Progress, format_seconds
from fetal_jax.runs import config_table as config_values
from fetal_jax.training import parallel


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/fetal_jax or ~/.cache/fetal_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fetal_jax"


def begin(config: ml_collections.ConfigDict) -> Dataset:
    """Check the config, open its data set, say what is assumed, and settle the grid."""
    config_values.check_values(config)
    parallel.check_batch(config.train.batch, depth=config.devices.depth)
    parallel.say_devices()
    dataset = open_dataset(config)
    _say_assumptions(dataset)
    resolve_grid(config, dataset)
    return dataset


def open_dataset(config: ml_collections.ConfigDict) -> Dataset:
    """The data set of config.data.root; with none, the phantom cohort, written on first use."""
    root = config.data.root or write_phantom(config)
    dataset = read_dataset(
        root,
        split_csv=config.data.split or None,
        coordinate_system=config.data.coordinate_system or None,
    )
    labels = tuple(config.data.labels)
    return select_landmarks(dataset, labels) if labels else dataset


def write_phantom(config: ml_collections.ConfigDict) -> Path:
    """The folder of the phantom cohort of config.phantom, written where it is not there yet."""
    settings = config.phantom.to_dict()
    # another simulator makes another cohort
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    sources = [
        *sorted(Path(phantom.__file__).parent.glob("*.py")),
        Path(growth.__file__),
        Path(phantom_files.__file__),
    ]
    for source in sources:
        digest.update(source.read_bytes())
    root = cache_folder() / f"phantom-{digest.hexdigest()[:12]}"
    if (root / "cases.csv").exists():
        return root
    print(f"simulating {settings['cases']} phantom faces, once, into {root}")
    _simulate(root, settings)
    return root


def run_phantom(config: ml_collections.ConfigDict, output: Path) -> None:
    """Write the phantom cohort of config.phantom into a folder, or finish it."""
    config_values.check_values(config)
    began = time.monotonic()
    _simulate(output, config.phantom.to_dict())
    size_mib = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 2**20
    print(
        f"{config.phantom.cases} cases in {output}, {size_mib:.0f} MiB, "
        f"{format_seconds(time.monotonic() - began)}; "
        f"look at them with --config.data.root={output} --mode=check"
    )


def _simulate(root: Path, settings: dict) -> None:
    progress, began = Progress(), time.monotonic()

    def report(done, total):
        left = (time.monotonic() - began) / done * (total - done)
        progress.show(f"phantom {done}/{total}  {format_seconds(left)} left")

    phantom_files.write_cohort(root, **settings, progress=report)
    progress.clear()


def resolve_grid(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Fill in what config.grid leaves to the data."""
    side, spacing_mm = preprocess.propose_grid(
        dataset,
        side=config.grid.side,
        spacing_mm=config.grid.spacing_mm,
        trust_missing_affine=config.data.trust_missing_affine,
    )
    config.grid.side, config.grid.spacing_mm = side, spacing_mm


def read_preprocessing(config: ml_collections.ConfigDict) -> Preprocessing:
    return Preprocessing(
        config.grid.side,
        config.grid.spacing_mm,
        tuple(config.grid.percentiles),
        config.data.trust_missing_affine,
    )


def split_dataset(config: ml_collections.ConfigDict, dataset: Dataset) -> dict[str, list[int]]:
    return folds.assign_splits(
        dataset.cases,
        seed=config.seed,
        test_folds=config.data.test_folds,
        validation_share=config.data.validation_share,
    )


def describe_splits(config, dataset: Dataset, splits) -> str:
    return (
        f"{len(dataset.cases)} cases, {len(dataset.labels)} landmarks: "
        + ", ".join(f"{len(splits[s])} {s}" for s in folds.SPLITS)
        + f"; grid {config.grid.side}³ at {config.grid.spacing_mm:g} mm"
    )


def prepare(config: ml_collections.ConfigDict, dataset: Dataset) -> PreparedCases:
    """Every case on the grid, from the cache where it has been made before."""
    return preprocess.prepare_dataset(
        dataset,
        read_preprocessing(config),
        coordinate_system=config.data.coordinate_system or None,
        cache=cache_folder() / "grids" if config.data.cache_grids else None,
    )


def _say_assumptions(dataset: Dataset) -> None:
    for sentence in dataset.assumptions:
        print(f"note: {sentence}")
