"""One run: trained on a split of the cases, evaluated with its best checkpoint."""

import time
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np

from fetal_jax import boxes, calibration, metrics
from fetal_jax.calibration import Calibration
from fetal_jax.data import folds
from fetal_jax.data import from_config as data
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset
from fetal_jax.detectors import from_config as network
from fetal_jax.detectors.detector import Trained
from fetal_jax.errors import InputError
from fetal_jax.progress import format_seconds
from fetal_jax.report import build, cases, pictures
from fetal_jax.runs import config_table as config_values
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs import predictions as evaluate
from fetal_jax.training import checkpoint, parallel
from fetal_jax.training import fit as train


def run_train(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Train, or go on, then evaluate the test cases once."""
    dataset = data.begin(config)
    splits = data.split_dataset(config, dataset)
    steps = count_steps(config, len(splits["train"]))
    results = parallel.from_first(lambda: _claim_run(config, workdir, steps))
    if results:
        print(f"{workdir} is finished: {results['steps']} steps")
    else:
        print(data.describe_splits(config, dataset, splits))
        results = train_split(config, workdir, dataset, data.prepare(config, dataset), splits)
    print(evaluate.format_results(results))
    say_report(workdir)


def say_report(workdir: Path) -> None:
    """The last line of a run: which file to open."""
    page = workdir / "report" / "index.html"
    if page.exists():
        print(f"open {page}: it says what was found and where everything is")
    else:
        print(
            f"{workdir}/results.csv has each point; --mode=report --workdir={workdir} writes a page"
        )


def _claim_run(config, workdir: Path, steps: int) -> dict | None:
    if (workdir / run_folder.FOLDS_CSV).exists():
        raise InputError(f"{workdir}: expected a training run's folder, got a cross-validation's")
    run_folder.claim_folder(workdir, config)
    return read_finished(workdir, steps)


def run_evaluate(workdir: Path) -> None:
    """Evaluate a run's test cases again, with its best checkpoint, and report it."""
    config, record = parallel.from_first(
        lambda: (run_folder.read_config(workdir), run_folder.read_data_record(workdir))
    )
    config_values.check_values(config)
    parallel.say_devices()
    prepared = open_tested(config, workdir, record)
    print(evaluate.format_results(evaluate_run(config, workdir, record, prepared)))
    say_report(workdir)


def open_tested(
    config: ml_collections.ConfigDict, workdir: Path, record: run_folder.DataRecord
) -> PreparedCases:
    """The test cases of a run, from its data set.

    Raises:
      InputError: the data set is not there, or not with all of them.
    """
    dataset = data.open_dataset(config)
    names = [case.name for case in dataset.cases]
    missing = [name for name in record.splits["test"] if name not in names]
    if missing:
        raise InputError(
            f"{dataset.root}: expected the test cases of {workdir}, got none named "
            f"{', '.join(missing)}"
        )
    tested = [dataset.cases[names.index(name)] for name in record.splits["test"]]
    dataset = Dataset(dataset.root, tuple(tested), record.landmarks, dataset.assumptions)
    return data.prepare(config, dataset)


def count_steps(config: ml_collections.ConfigDict, training_cases: int) -> int:
    """config.train.steps, or what config.train.epochs makes of it."""
    if config.train.epochs:
        return -(-config.train.epochs * training_cases // config.train.batch)
    return config.train.steps


def read_finished(workdir: Path, steps: int) -> dict | None:
    """results.json of a run that has done so many steps, else None."""
    path = workdir / "results.json"
    results = run_folder.read_json(path) if path.exists() else None
    return results if results and results["steps"] >= steps else None


def train_split(
    config: ml_collections.ConfigDict,
    workdir: Path,
    dataset: Dataset,
    prepared: PreparedCases,
    splits: dict[str, list[int]],
    *,
    report: bool = True,
) -> dict:
    """Train on one split of the cases, from where the folder has got to, and evaluate its test.

    Args:
      prepared: all cases of the data set, on the grid.
      splits: split -> indices of its cases.
      report: whether to write the run's page; a fold is part of another.

    Returns:
      What results.json holds.
    """
    model = network.build_model(config, len(dataset.labels))
    parts = {split: prepared.select(splits[split]) for split in folds.SPLITS}
    training, validation = parts["train"], parts["validation"]
    record = run_folder.DataRecord(
        dataset.landmarks,
        data.read_preprocessing(config),
        {split: [case.name for case in parts[split].cases] for split in folds.SPLITS},
        training.mean_positions().tolist(),
    )
    parallel.from_first(lambda: run_folder.claim_data(workdir, record))

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
        found = find(Trained(params), {"volumes": validation.volumes})

        def draw():
            first = validation.select([0])
            figure = pictures.draw_cases(first, record.labels, found.points_vox[:1])
            return pictures.to_array(figure)

        return train.mean_error(validation.to_world(found.points_vox), validation), draw

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
        parallel.map_step(step, depth=config.devices.depth),
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
    calibrate_run(config, workdir, validation, model, find)
    return evaluate_run(config, workdir, record, parts["test"], report=report)


def calibrate_run(config, workdir: Path, validation: PreparedCases, model, find) -> None:
    """Fit what the best checkpoint's confidence is worth, on the validation cases; keep it."""
    fitted = Calibration()
    if len(validation):
        trained, *_ = parallel.from_first(lambda: restore_best(workdir, config, model))
        found = find(Trained(trained.params), {"volumes": validation.volumes})
        errors = metrics.radial_errors(validation.to_world(found.points_vox), validation.points_mm)
        seen = validation.visible
        fitted = calibration.fit_calibration(
            found.confidence[seen], errors[seen] <= config.evaluation.confidence_radius_mm
        )
    parallel.from_first(lambda: run_folder.write_calibration(workdir, fitted))


def evaluate_run(
    config: ml_collections.ConfigDict,
    workdir: Path,
    record: run_folder.DataRecord,
    prepared: PreparedCases,
    *,
    report: bool = True,
) -> dict:
    """Predict the test cases with the best checkpoint; write and return what came of it."""
    measured, *steps = measure_cases(config, workdir, record, prepared)
    results = parallel.from_first(
        lambda: _write_run(config, workdir, record, prepared, measured, *steps)
    )
    if report:
        report_run(config, workdir, record.labels, [(workdir, prepared, measured)])
    return results


def _write_run(config, workdir, record, prepared, measured, best_step, last_step) -> dict:
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
    evaluate.write_results(
        workdir,
        results,
        prepared,
        record.labels,
        measured,
        min_confidence=config.evaluation.min_confidence,
    )
    return results


def report_run(config, workdir: Path, labels: list[str], parts, left_out=()) -> None:
    """Write WORKDIR/report, where config.report.on; parts: of `show_cases`."""
    if not config.report.on:
        return
    shown = show_cases(config, labels, parts)
    surfaces = config.report.surfaces
    parallel.from_first(lambda: build.write_report(workdir, shown, left_out, surfaces=surfaces))


def show_cases(
    config: ml_collections.ConfigDict,
    labels: list[str],
    parts: list[tuple[Path, PreparedCases, evaluate.Measured]],
) -> list[cases.ShownCase]:
    """The worst and the median cases, with their heatmaps, for a report.

    Args:
      parts: (folder, test cases, what its model found) of one run, or of each fold.
    """
    if not parts:
        return []
    errors = [metrics.radial_errors(m.found_mm, p.points_mm) for _, p, m in parts]
    visible = np.concatenate([p.visible for _, p, _ in parts])
    places = [(part, n) for part, (_, p, _) in enumerate(parts) for n in range(len(p))]
    model = network.build_model(config, len(labels))
    find = network.build_finder(config, model)
    shown, models = [], {}
    for title, case, landmark in cases.choose_cases(np.concatenate(errors), visible):
        part, n = places[case]
        workdir, prepared, measured = parts[part]
        if workdir not in models:
            models[workdir], *_ = parallel.from_first(partial(restore_best, workdir, config, model))
        examples = {"volumes": prepared.volumes[[n]], "shown": np.array([landmark])}
        shown.append(
            cases.show_case(
                prepared,
                n,
                title=title,
                labels=labels,
                found_mm=measured.found_mm[n],
                confidence=measured.confidence[n],
                landmark=landmark,
                map_=find(models[workdir], examples).map[0],
            )
        )
    return shown


def measure_cases(
    config: ml_collections.ConfigDict,
    workdir: Path,
    record: run_folder.DataRecord,
    prepared: PreparedCases,
) -> tuple[evaluate.Measured, int, int]:
    """What a run's best checkpoint finds in cases with landmarks; its step, and the latest."""
    model = network.build_model(config, len(record.labels))
    trained, *steps = parallel.from_first(lambda: restore_best(workdir, config, model))
    examples = {"volumes": prepared.volumes, "points_vox": prepared.points_vox}
    found = network.build_finder(config, model)(trained, examples)
    measured = evaluate.Measured(
        prepared.to_world(found.points_vox),
        prepared.to_world(found.argmax_vox),
        found.confidence,
        found.local_mm,
        found.local_guess_mm,
    )
    return measured, *steps


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
        confidence_radius_mm=config.evaluation.confidence_radius_mm,
        min_confidence=config.evaluation.min_confidence,
    )


def restore_best(workdir: Path, config: ml_collections.ConfigDict, model):
    """(`Trained` of the best checkpoint, its step, the latest step)."""
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
    return Trained(params, run_folder.read_calibration(workdir)), best, latest
