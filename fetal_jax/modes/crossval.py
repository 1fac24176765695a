"""`--mode=crossval`: a run for each fold of the subjects, and one result of them all.

WORKDIR/folds.csv says which fold each case is in, WORKDIR/fold1/ and so on are ordinary runs.
results.json holds them (`folds`), all test cases together (`pooled`) and, where cases are held out
of every fold, what the folds' models find in those (`external`, and `ensemble` of their mean).
"""

from functools import partial
from pathlib import Path

import ml_collections
import numpy as np

from fetal_jax.data import folds
from fetal_jax.data import from_config as data
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.fold_table import read_folds, write_folds
from fetal_jax.errors import InputError
from fetal_jax.modes import train as experiment
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs import predictions as evaluate
from fetal_jax.training import parallel

EXTERNAL_NPZ = "external.npz"  # in a fold's folder: what its model finds in the external cases


def run_crossval(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Train every fold, or go on in the one that was interrupted; pool what they find."""
    dataset = data.begin(config)
    names = [str(fold + 1) for fold in range(config.crossval.folds)]
    folders = {name: workdir / f"fold{name}" for name in names}
    assigned = assign_folds(config, dataset)
    splits = {
        name: folds.split_fold(
            dataset.cases,
            assigned,
            name,
            seed=config.seed,
            validation_share=config.data.validation_share,
        )
        for name in names
    }
    steps = {name: experiment.count_steps(config, len(splits[name]["train"])) for name in names}

    def claim():
        if (workdir / "checkpoints").exists():
            raise InputError(
                f"{workdir}: expected a cross-validation's folder, got a training run's"
            )
        for folder in (*folders.values(), workdir):
            run_folder.claim_folder(folder, config)
        write_folds(workdir / run_folder.FOLDS_CSV, dataset.cases, assigned)
        return experiment.read_finished(workdir, max(steps.values()))

    results = parallel.from_first(claim)
    if results:
        print(f"{workdir} is finished: {len(names)} folds")
        _say_results(workdir, results)
        return
    prepared = data.prepare(config, dataset)
    outside = prepared.select([i for i, f in enumerate(assigned) if f == folds.EXTERNAL])
    parts, external, runs = [], [], []
    for name, folder in folders.items():
        found = parallel.from_first(partial(_read_fold, folder, steps[name]))
        if found is None:
            print(f"fold {name}: {data.describe_splits(config, dataset, splits[name])}")
            found = experiment.train_split(
                config, folder, dataset, prepared, splits[name], report=False
            )
        print(f"fold {name}: d-mean {_show(found)}")
        runs.append(found)
        tested = prepared.select(splits[name]["test"])
        record, measured, measured_outside = parallel.from_first(partial(_read_found, folder))
        parts.append((name, tested, measured, evaluate.guess_errors(tested, record.guess_mm)))
        if len(outside):
            guess = evaluate.guess_errors(outside, record.guess_mm)
            if measured_outside is None:
                measured_outside = _measure_external(config, folder, record, outside)
            external.append((name, outside, measured_outside, guess))
    results = parallel.from_first(
        lambda: _write_pooled(config, workdir, dataset, runs, parts, external)
    )
    tested = [(folders[name], cases, measured) for name, cases, measured, _ in parts]
    experiment.report_run(config, workdir, list(dataset.labels), tested)
    _say_results(workdir, results)


def _read_fold(folder: Path, steps: int) -> dict | None:
    results = experiment.read_finished(folder, steps)
    if results is None:
        (folder / EXTERNAL_NPZ).unlink(missing_ok=True)  # of fewer steps
    return results


def _read_found(folder: Path):
    """A finished fold's record, what it found in its test cases, and in the external ones."""
    outside = folder / EXTERNAL_NPZ
    return (
        run_folder.read_data_record(folder),
        evaluate.read_measured(folder / "predictions.npz"),
        evaluate.read_measured(outside) if outside.exists() else None,
    )


def _write_pooled(config, workdir: Path, dataset: Dataset, runs, parts, external) -> dict:
    results = pool_results(config, dataset, runs, parts, external)
    labels = list(dataset.labels)
    tested = [part[:3] for part in parts]
    evaluate.write_points(workdir / "results.csv", labels, tested)
    evaluate.write_measurements(
        workdir / "measurements.csv",
        labels,
        tested,
        min_confidence=config.evaluation.min_confidence,
    )
    if external:
        outside, mean = external[0][1], evaluate.average_measured([part[2] for part in external])
        rows = [*(part[:3] for part in external), ("ensemble", outside, mean)]
        evaluate.write_points(workdir / "external.csv", labels, rows)
    run_folder.write_json(workdir / "results.json", results)
    return results


def assign_folds(config: ml_collections.ConfigDict, dataset: Dataset) -> list[str]:
    """The fold of each case: from config.crossval.split if that is given, else drawn."""
    k = config.crossval.folds
    if config.crossval.split:
        known = (*(str(fold + 1) for fold in range(k)), folds.EXTERNAL)
        return read_folds(Path(config.crossval.split), dataset.cases, known)
    return folds.assign_folds(
        dataset.cases, k=k, seed=config.seed, external_site=config.crossval.external_site
    )


def pool_results(config, dataset: Dataset, runs: list[dict], parts, external) -> dict:
    """The content of results.json.

    Args:
      runs: each fold's own results.
      parts, external: for each fold (name, cases, what was found, errors of a guess).
    """
    labels = list(dataset.labels)
    pooled = _summarise_parts(config, labels, parts)
    results = {"folds": [_without_config(run) for run in runs], "pooled": pooled}
    if external:
        outside = external[0][1]
        results["external"] = _summarise_parts(config, labels, external)
        # each case counts once for each model; say how many there are
        results["external"]["landmarks"] //= len(external)
        results["external"]["models"] = len(external)
        mean = evaluate.average_measured([part[2] for part in external])
        guess = np.mean([part[3] for part in external], axis=0)
        results["external"]["ensemble"] = experiment.summarise(config, labels, outside, mean, guess)
    return results | {
        "config": config.to_dict(),
        "seed": config.seed,
        "steps": max(run["steps"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
        "device": parallel.describe_devices(),
    }


def _summarise_parts(config, labels, parts) -> dict:
    _, cases, measured, guess = zip(*parts, strict=True)
    joined = evaluate.join_measured(list(measured))
    return experiment.summarise(
        config, labels, cases[0].join(*cases[1:]), joined, np.concatenate(guess)
    )


def _measure_external(config, folder: Path, record, outside) -> evaluate.Measured:
    measured, *_ = experiment.measure_cases(config, folder, record, outside)

    def keep():
        evaluate.write_measured(folder / EXTERNAL_NPZ, measured)
        return evaluate.read_measured(folder / EXTERNAL_NPZ)  # as a later start would have it

    return parallel.from_first(keep)


def _without_config(run: dict) -> dict:
    return {key: value for key, value in run.items() if key != "config"}


def _show(results: dict) -> str:
    if results["d_mean_mm"] is None:
        return "not measured"
    interval = results["d_mean_ci_mm"]
    between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{results['d_mean_mm']:.2f} mm{between}"


def _say_results(workdir: Path, results: dict) -> None:
    print(f"all {len(results['folds'])} folds: {evaluate.format_results(results['pooled'])}")
    if external := results.get("external"):
        print(
            f"external, {external['cases']} cases: d-mean {_show(external)}, "
            f"ensemble {_show(external['ensemble'])}"
        )
    experiment.say_report(workdir)
