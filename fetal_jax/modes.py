"""What each `--mode` of the launcher does, from a config and a folder to files."""

import hashlib
import os
import time
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np

from fetal_jax import (
    boxes,
    checkpoint,
    config_values,
    evaluate,
    folds,
    network,
    parallel,
    phantom,
    preprocess,
    run_folder,
    train,
)
from fetal_jax.errors import InputError
from fetal_jax.io import phantom_files
from fetal_jax.io.dataset import Dataset, read_dataset, select_landmarks
from fetal_jax.preprocess import PreparedCases, Preprocessing
from fetal_jax.progress import Progress, format_seconds
from fetal_jax.report import pictures

FOLDS_CSV = "folds.csv"  # of a cross-validation: case, fold


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/fetal_jax or ~/.cache/fetal_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fetal_jax"


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
    sources = [*sorted(Path(phantom.__file__).parent.glob("*.py")), Path(phantom_files.__file__)]
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


def count_steps(config: ml_collections.ConfigDict, training_cases: int) -> int:
    """config.train.steps, or what config.train.epochs makes of it."""
    if config.train.epochs:
        return -(-config.train.epochs * training_cases // config.train.batch)
    return config.train.steps


def split_dataset(config: ml_collections.ConfigDict, dataset: Dataset) -> dict[str, list[int]]:
    return folds.assign_splits(
        dataset.cases,
        seed=config.seed,
        test_folds=config.data.test_folds,
        validation_share=config.data.validation_share,
    )


def begin(config: ml_collections.ConfigDict) -> Dataset:
    """Check the config, open its data set, say what is assumed, and settle the grid."""
    config_values.check_values(config)
    parallel.check_batch(config.train.batch)
    _say_devices()
    dataset = open_dataset(config)
    _say_assumptions(dataset)
    resolve_grid(config, dataset)
    return dataset


def prepare(config: ml_collections.ConfigDict, dataset: Dataset) -> PreparedCases:
    """Every case on the grid, from the cache where it has been made before."""
    return preprocess.prepare_dataset(
        dataset,
        read_preprocessing(config),
        coordinate_system=config.data.coordinate_system or None,
        cache=cache_folder() / "grids" if config.data.cache_grids else None,
    )


def run_train(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Train, or go on, then evaluate the test cases once."""
    if (workdir / FOLDS_CSV).exists():
        raise InputError(f"{workdir}: expected a training run's folder, got a cross-validation's")
    dataset = begin(config)
    run_folder.claim_folder(workdir, config)
    splits = split_dataset(config, dataset)
    results = read_finished(workdir, count_steps(config, len(splits["train"])))
    if results:
        print(f"{workdir} is finished: {results['steps']} steps")
    else:
        print(describe_splits(config, dataset, splits))
        results = train_split(config, workdir, dataset, prepare(config, dataset), splits)
    print(evaluate.format_results(results))
    print(
        f"open {workdir}/overview.png (truth and prediction), {workdir}/results.csv (each point), "
        f"{workdir}/predictions/ (for 3D Slicer)"
    )


def read_finished(workdir: Path, steps: int) -> dict | None:
    """results.json of a run that has done so many steps, else None."""
    path = workdir / "results.json"
    results = run_folder.read_json(path) if path.exists() else None
    return results if results and results["steps"] >= steps else None


def describe_splits(config, dataset: Dataset, splits) -> str:
    return (
        f"{len(dataset.cases)} cases, {len(dataset.labels)} landmarks: "
        + ", ".join(f"{len(splits[s])} {s}" for s in folds.SPLITS)
        + f"; grid {config.grid.side}³ at {config.grid.spacing_mm:g} mm"
    )


def train_split(
    config: ml_collections.ConfigDict,
    workdir: Path,
    dataset: Dataset,
    prepared: PreparedCases,
    splits: dict[str, list[int]],
) -> dict:
    """Train on one split of the cases, from where the folder has got to, and evaluate its test.

    Args:
      prepared: all cases of the data set, on the grid.
      splits: split -> indices of its cases.

    Returns:
      What results.json holds.
    """
    model = network.build_model(config, len(dataset.labels))
    parts = {split: prepared.select(splits[split]) for split in folds.SPLITS}
    training, validation = parts["train"], parts["validation"]
    record = run_folder.DataRecord(
        dataset.landmarks,
        read_preprocessing(config),
        {split: [case.name for case in parts[split].cases] for split in folds.SPLITS},
        mean_positions(training).tolist(),
    )
    run_folder.claim_data(workdir, record)

    steps = count_steps(config, len(training))
    optimizer, schedule = train.build_optimizer(**config.optim, steps=steps)
    init_key = jax.random.fold_in(jax.random.key(config.seed), 0)
    create = partial(
        train.create_state, model=model, optimizer=optimizer, side=2 ** len(config.model.widths)
    )
    state = jax.jit(create)(init_key)
    print(f"{network.count_parameters(state.params):,} parameters, {steps} steps, into {workdir}")
    find = network.build_finder(config, model)

    def validate(params):
        found = find(params, {"volumes": validation.volumes})
        return train.mean_error(to_world(found.points_vox, validation), validation)

    step = network.build_step(
        config,
        model,
        optimizer,
        dataset.mirror_index,
        boxes.mean_distances(training.points_vox, training.present),
    )
    began = time.monotonic()
    train.fit(
        workdir,
        state,
        parallel.map_step(step),
        validate if len(validation) and validation.visible.any() else None,
        training,
        seed=config.seed,
        steps=steps,
        batch=config.train.batch,
        with_completed=config.data.train_on_completed,
        log_every=config.log.every,
        save_every=config.log.save_every,
        schedule=schedule,
    )
    print(f"trained for {format_seconds(time.monotonic() - began)}; evaluating the test cases")
    return evaluate_run(config, workdir, record, parts["test"])


def run_evaluate(workdir: Path) -> None:
    """Evaluate a run's test cases again, with its best checkpoint."""
    config, record = run_folder.read_config(workdir), run_folder.read_data_record(workdir)
    _say_devices()
    dataset = open_dataset(config)
    names = [case.name for case in dataset.cases]
    missing = [name for name in record.splits["test"] if name not in names]
    if missing:
        raise InputError(
            f"{dataset.root}: expected the test cases of {workdir}, got none named "
            f"{', '.join(missing)}"
        )
    tested = [dataset.cases[names.index(name)] for name in record.splits["test"]]
    dataset = Dataset(dataset.root, tuple(tested), record.landmarks, dataset.assumptions)
    prepared = prepare(config, dataset)
    print(evaluate.format_results(evaluate_run(config, workdir, record, prepared)))


def evaluate_run(
    config: ml_collections.ConfigDict,
    workdir: Path,
    record: run_folder.DataRecord,
    prepared: PreparedCases,
) -> dict:
    """Predict the test cases with the best checkpoint; write and return what came of it."""
    measured, best_step, last_step = measure_cases(config, workdir, record, prepared)
    results = summarise(
        config, record.labels, prepared, measured, evaluate.guess_errors(prepared, record.guess_mm)
    )
    results |= {
        "config": config.to_dict(),
        "seed": config.seed,
        "steps": last_step,
        "best_step": best_step,
        "seconds": train.read_seconds(workdir),
        "device": parallel.describe_devices(),
    }
    worst_first = np.argsort(
        -np.nanmean(_errors(measured.found_mm, prepared), axis=1), kind="stable"
    )
    shown = [int(worst_first[i]) for i in sorted({len(worst_first) // 2, 0}, reverse=True)]
    chosen = prepared.select(shown)
    found_vox = [
        g.to_voxels(p) for g, p in zip(chosen.grids, measured.found_mm[shown], strict=True)
    ]
    pictures.draw_cases(
        workdir / "overview.png",
        chosen,
        record.labels,
        np.stack(found_vox),
        titles=["median case", "worst case"][-len(shown) :],
    )
    evaluate.write_results(workdir, results, prepared, record.labels, measured)
    return results


def measure_cases(
    config: ml_collections.ConfigDict,
    workdir: Path,
    record: run_folder.DataRecord,
    prepared: PreparedCases,
) -> tuple[evaluate.Measured, int, int]:
    """What a run's best checkpoint finds in cases with landmarks; its step, and the latest."""
    model = network.build_model(config, len(record.labels))
    params, best_step, last_step = restore_best(workdir, config, model)
    examples = {"volumes": prepared.volumes, "points_vox": prepared.points_vox}
    found = network.build_finder(config, model)(params, examples)
    measured = evaluate.Measured(
        to_world(found.points_vox, prepared),
        to_world(found.argmax_vox, prepared),
        found.confidence,
        found.local_mm,
        found.local_guess_mm,
    )
    return measured, best_step, last_step


def summarise(
    config: ml_collections.ConfigDict,
    labels: list[str],
    prepared: PreparedCases,
    measured: evaluate.Measured,
    guess_mm: np.ndarray,
) -> dict:
    """`evaluate.summarise` with the config's radii and age groups."""
    return evaluate.summarise(
        prepared,
        labels,
        measured,
        guess_mm,
        radii_mm=list(config.evaluation.radii_mm),
        ela_radii_mm=network.ela_radii(config),
        age_groups_weeks=list(config.evaluation.age_groups_weeks),
    )


def restore_best(workdir: Path, config: ml_collections.ConfigDict, model):
    """(parameters of the best checkpoint, its step, the latest step)."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the checkpoints of a run, got no such folder")
    manager = checkpoint.open_checkpoints(folder)
    best = manager.best_step()
    if best is None:
        raise InputError(f"{folder}: expected a checkpoint, got none: train first")
    optimizer, _ = train.build_optimizer(**config.optim, steps=1)
    create = partial(
        train.create_state, model=model, optimizer=optimizer, side=2 ** len(config.model.widths)
    )
    like = jax.eval_shape(create, jax.random.key(0))
    params = checkpoint.restore_checkpoint(manager, best, like).params
    latest = manager.latest_step()
    manager.close()
    return params, best, latest


def mean_positions(prepared: PreparedCases) -> np.ndarray:
    """[L, 3], mm from the grid's first voxel: where each landmark is on average."""
    counted = prepared.present[..., None]
    sums = np.sum(np.where(counted, prepared.points_vox, 0.0), axis=0, dtype=np.float64)
    centre = (prepared.grids[0].side - 1) / 2
    means = np.where(counted.any(axis=0), sums / np.maximum(counted.sum(axis=0), 1), centre)
    return means * prepared.grids[0].spacing_mm


def to_world(points_vox: np.ndarray, prepared: PreparedCases) -> np.ndarray:
    """[N, L, 3] voxels of each case's own grid to RAS+ mm."""
    return np.stack([g.to_world(p) for g, p in zip(prepared.grids, points_vox, strict=True)])


def _errors(found_mm, prepared):
    errors = np.linalg.norm(found_mm - prepared.points_mm, axis=-1)
    return np.where(prepared.present.any(axis=1, keepdims=True), errors, 0.0)


def _say_devices() -> None:
    print(f"running on {parallel.describe_devices()}")
    if warning := parallel.find_idle_accelerator():
        print(f"warning: {warning}")


def _say_assumptions(dataset: Dataset) -> None:
    for sentence in dataset.assumptions:
        print(f"note: {sentence}")
