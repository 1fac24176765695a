"""`--mode=crossval`: a run for each fold of the subjects, and one result of them all.

WORKDIR/folds.csv says which fold each case is in, WORKDIR/fold1/ and so on are ordinary runs.
results.json holds them (`folds`), all test cases together (`pooled`) and, where cases are held out
of every fold, what the folds' models find in those (`external`, and `ensemble` of their mean).
"""

from pathlib import Path

import ml_collections
import numpy as np

from fetal_jax import data, evaluate, experiment, folds, parallel, run_folder
from fetal_jax.errors import InputError
from fetal_jax.io.dataset import Dataset
from fetal_jax.io.fold_table import read_folds, write_folds

EXTERNAL_NPZ = "external.npz"  # in a fold's folder: what its model finds in the external cases


def run_crossval(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Train every fold, or go on in the one that was interrupted; pool what they find."""
    if (workdir / "checkpoints").exists():
        raise InputError(f"{workdir}: expected a cross-validation's folder, got a training run's")
    dataset = data.begin(config)
    names = [str(fold + 1) for fold in range(config.crossval.folds)]
    folders = {name: workdir / f"fold{name}" for name in names}
    for folder in folders.values():
        run_folder.claim_folder(folder, config)
    run_folder.claim_folder(workdir, config)
    assigned = assign_folds(config, dataset)
    write_folds(workdir / run_folder.FOLDS_CSV, dataset.cases, assigned)
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
    results = experiment.read_finished(workdir, max(steps.values()))
    if results:
        print(f"{workdir} is finished: {len(names)} folds")
        _say_results(workdir, results)
        return
    prepared = data.prepare(config, dataset)
    outside = prepared.select([i for i, f in enumerate(assigned) if f == folds.EXTERNAL])
    parts, external, runs = [], [], []
    for name, folder in folders.items():
        found = experiment.read_finished(folder, steps[name])
        if found is None:
            print(f"fold {name}: {data.describe_splits(config, dataset, splits[name])}")
            (folder / EXTERNAL_NPZ).unlink(missing_ok=True)  # of fewer steps
            found = experiment.train_split(config, folder, dataset, prepared, splits[name])
        print(f"fold {name}: d-mean {_show(found)}")
        runs.append(found)
        tested = prepared.select(splits[name]["test"])
        record = run_folder.read_data_record(folder)
        measured = evaluate.read_measured(folder / "predictions.npz")
        parts.append((name, tested, measured, evaluate.guess_errors(tested, record.guess_mm)))
        if len(outside):
            guess = evaluate.guess_errors(outside, record.guess_mm)
            measured = _measure_external(config, folder, record, outside)
            external.append((name, outside, measured, guess))
    results = pool_results(config, dataset, runs, parts, external)
    labels = list(dataset.labels)
    evaluate.write_points(workdir / "results.csv", labels, [part[:3] for part in parts])
    if external:
        mean = evaluate.average_measured([part[2] for part in external])
        rows = [*(part[:3] for part in external), ("ensemble", outside, mean)]
        evaluate.write_points(workdir / "external.csv", labels, rows)
    run_folder.write_json(workdir / "results.json", results)
    _say_results(workdir, results)


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
    path = folder / EXTERNAL_NPZ
    if not path.exists():
        evaluate.write_measured(path, experiment.measure_cases(config, folder, record, outside)[0])
    return evaluate.read_measured(path)


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
    print(f"open {workdir}/results.csv (each point), {workdir}/folds.csv (the split)")
