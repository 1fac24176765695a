"""`--mode=crossval`: a run for each fold of the subjects, and one result of them all.

WORKDIR/folds.csv says which fold each case is in, WORKDIR/fold1/ and so on are ordinary runs.
results.json holds them (`folds`), all test cases together (`pooled`) and, where cases are held out
of every fold, what the folds' models find in those (`external`, and `ensemble` of their mean).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax.conformal import Region
from fetal_jax.data import folds
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.file_digests import digest_cases
from fetal_jax.data.fold_table import read_folds, write_folds
from fetal_jax.data.from_config import (
    choose_cache,
    format_splits,
    prepare_cases,
    resolve_grid,
)
from fetal_jax.data.landmark_table import Landmark
from fetal_jax.data.twins import find_twins
from fetal_jax.errors import InputError
from fetal_jax.modes.evaluate import describe_run, judge_predictions, read_doubt, summarise
from fetal_jax.modes.report import finish_report, print_report, report_run
from fetal_jax.modes.train import open_run_data, train_split, warn_of_annotations
from fetal_jax.runs import aligned, folder, out_of_fold, start_from
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.finished import read_finished
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.measurement_table import write_tested_measurements
from fetal_jax.runs.point_table import write_points
from fetal_jax.runs.predictions import (
    Predictions,
    average_predictions,
    read_predictions,
    recalibrate,
    write_predictions,
)
from fetal_jax.runs.results import format_results, save_results
from fetal_jax.runs.search import predict_cases
from fetal_jax.runs.stages import StagePoints, read_stages, summarise_stages
from fetal_jax.runs.summary import ENSEMBLE, Part, average_shares, make_part
from fetal_jax.runs.usual import learn_usual, write_usual
from fetal_jax.training.from_config import count_steps
from fetal_jax.training.processes import from_first

EXTERNAL_NPZ = "external.npz"  # in a fold's folder: what its model finds in the external cases


class _FoundCases(NamedTuple):
    """What one fold's model finds in some cases."""

    fold: str
    record: DataRecord
    cases: PreparedCases
    predictions: Predictions
    stages: StagePoints | None = None


def run_crossval(config: ConfigDict, workdir: Path) -> None:
    """Train every fold, or go on in the one that was interrupted; pool what they find."""
    config, dataset = open_run_data(config)
    names = [str(fold + 1) for fold in range(config.crossval.folds)]
    folders = {name: workdir / f"fold{name}" for name in names}
    assigned = assign_folds(config, dataset)
    digests = digest_cases(dataset.cases, choose_cache(config))
    held_out = [i for i, fold in enumerate(assigned) if fold == folds.EXTERNAL]
    outside = [dataset.cases[i].name for i in held_out]
    from_first(lambda: start_from.check_run(config, workdir, digests, outside))
    fitted = [i for i, fold in enumerate(assigned) if fold != folds.EXTERNAL]
    config = resolve_grid(config, dataset, fitted)
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
    steps = {name: count_steps(config, len(splits[name]["train"])) for name in names}
    results = from_first(
        lambda: _claim_crossval(
            config, workdir, list(folders.values()), dataset, assigned, max(steps.values())
        )
    )
    if results:
        print(f"{workdir} is finished: {len(names)} folds")
        for fold_folder in folders.values():
            for sentence in from_first(partial(folder.name_changes, fold_folder, digests)):
                print(f"note: {sentence}")
        finish_report(config, workdir)
        _print_results(workdir, results)
        return
    prepared = prepare_cases(config, dataset, held_out)
    if problems := find_twins(prepared, assigned, "fold"):
        raise InputError(*problems)
    from_first(lambda: warn_of_annotations(config, dataset, folders.values()))
    outside = prepared.select(held_out)
    found, found_outside, runs = [], [], []
    for name, fold_folder in folders.items():
        run = from_first(partial(_read_fold, config, fold_folder, steps[name]))
        if run is None:
            print(f"fold {name}: {format_splits(config, dataset, splits[name])}")
            run = train_split(config, fold_folder, dataset, prepared, splits[name], report=False)
        print(f"fold {name}: d-mean {_format_mean(run)}")
        runs.append(run)
        record, predictions, stages, predictions_outside = from_first(
            partial(_read_found, fold_folder)
        )
        cases = prepared.select(splits[name]["test"])
        found.append(_FoundCases(name, record, cases, predictions, stages))
        if len(outside):
            if predictions_outside is None:
                predictions_outside = _predict_external(config, fold_folder, record, outside)
            found_outside.append(_FoundCases(name, record, outside, predictions_outside))
    tested, external, calibrations = _judge_folds(config, found, found_outside)
    stages = [(one.cases, one.stages) for one in found if one.stages is not None]
    learned = [i for i, fold in enumerate(assigned) if fold in names]
    from_first(lambda: _write_usual(config, workdir, dataset, prepared, learned, tested))
    results = from_first(
        lambda: _write_pooled(
            config, workdir, dataset.landmarks, runs, tested, external, calibrations, stages
        )
    )
    shown = [(folders[part.fold], part.cases, part.predictions) for part in tested]
    report_run(config, workdir, list(dataset.labels), shown)
    _print_results(workdir, results)


def assign_folds(config: FrozenConfigDict, dataset: Dataset) -> list[str]:
    """The fold of each case: from config.crossval.split if that is given, else drawn."""
    k = config.crossval.folds
    if config.crossval.split:
        return read_folds(
            Path(config.crossval.split).expanduser(),
            dataset.cases,
            [str(fold + 1) for fold in range(k)],
            (folds.EXTERNAL, folds.TUNING),
        )
    try:
        return folds.assign_folds(
            dataset.cases,
            k=k,
            seed=config.seed,
            external_site=config.crossval.external_site,
            tuning_share=config.crossval.tuning_share,
        )
    except ValueError as error:
        raise InputError(f"config.crossval: {error}") from None


def _claim_crossval(config, workdir, folders, dataset, assigned, steps) -> dict | None:
    if (workdir / "checkpoints").exists():
        raise InputError(f"{workdir}: expected a cross-validation's folder, got a training run's")
    for one in (*folders, workdir):
        folder.claim_folder(one, config)
    write_folds(workdir / folder.FOLDS_CSV, dataset.cases, assigned)
    return read_finished(workdir, steps, aligned.count_steps(config))


def _read_fold(config, fold_folder: Path, steps: int) -> dict | None:
    results = read_finished(fold_folder, steps, aligned.count_steps(config))
    if results is None:
        (fold_folder / EXTERNAL_NPZ).unlink(missing_ok=True)  # of fewer steps
    return results


def _read_found(
    fold_folder: Path,
) -> tuple[DataRecord, Predictions, StagePoints | None, Predictions | None]:
    """A finished fold's record, what it found in its test cases, and in the external ones."""
    record = folder.read_data_record(fold_folder)
    tested = read_predictions(fold_folder / "predictions.npz")
    stages = read_stages(fold_folder)
    try:
        return record, tested, stages, read_predictions(fold_folder / EXTERNAL_NPZ)
    except InputError:  # not there, or of another version: it can be made again
        return record, tested, stages, None


def _predict_external(
    config, fold_folder: Path, record: DataRecord, outside: PreparedCases
) -> Predictions:
    predictions, _, _ = predict_cases(config, fold_folder, record, outside)

    def keep():
        write_predictions(fold_folder / EXTERNAL_NPZ, predictions)
        return read_predictions(fold_folder / EXTERNAL_NPZ)  # as a later start would have it

    return from_first(keep)


def _judge_folds(
    config, found: list[_FoundCases], found_outside: list[_FoundCases]
) -> tuple[list[Part], list[Part], Calibrations]:
    """The parts of the test and of the external cases, and what a mass is worth beyond them."""
    radius_mm, share = config.evaluation.confidence_radius_mm, config.evaluation.region_share
    pairs = [(one.cases, one.predictions) for one in found]
    calibrations = out_of_fold.fit_points(pairs, radius_mm, share)
    calibrated = out_of_fold.calibrate_folds(pairs, radius_mm, share)
    tested = [
        judge_predictions(config, one.record, one.cases, predictions, one.fold)
        for one, predictions in zip(found, calibrated, strict=True)
    ]
    external = [
        judge_predictions(
            config, one.record, one.cases, recalibrate(one.predictions, calibrations), one.fold
        )
        for one in found_outside
    ]
    return tested, external, calibrations


def _write_usual(
    config,
    workdir: Path,
    dataset: Dataset,
    prepared: PreparedCases,
    learned: list[int],
    tested: list[Part],
) -> None:
    """For what the mean of the models finds in new scans; learned: indices of the folds' cases."""
    usual = learn_usual(
        prepared.points_mm[learned],
        [prepared.cases[i].subject for i in learned],
        prepared.visible[learned],
        dataset.mirror_index,
        [part.predictions for part in tested],
        min_visible=aligned.read_min_visible(config),
    )
    write_usual(workdir, usual)


def _write_pooled(
    config,
    workdir: Path,
    landmarks: Sequence[Landmark],
    runs: list[dict],
    tested: list[Part],
    external: list[Part],
    calibrations: Calibrations,
    stages: list[tuple[PreparedCases, StagePoints]],
) -> dict:
    labels = [landmark.label for landmark in landmarks]
    ensemble = average_parts(config, labels, external, calibrations) if external else None
    folder.write_calibrations(workdir, calibrations)
    region = calibrations.region
    results = pool_results(config, landmarks, runs, tested, external, ensemble, region)
    if stages:
        results["pooled"]["stages"] = summarise_stages(stages)
    write_points(workdir / "results.csv", labels, tested)
    write_tested_measurements(workdir / "measurements.csv", tested)
    if external:
        write_points(workdir / "external.csv", labels, [*external, ensemble])
    save_results(workdir, results)
    return results


def average_parts(
    config: FrozenConfigDict, labels: list[str], parts: list[Part], calibrations: Calibrations
) -> Part:
    """What the mean of several models finds in the same cases.

    calibrations: of one model's mass. No case that could tell the ensemble's is left out of all
      folds; it is right at least as often.
    """
    return make_part(
        ENSEMBLE,
        parts[0].cases,
        average_predictions([part.predictions for part in parts], calibrations),
        labels,
        np.mean([part.guess_error_mm for part in parts], axis=0),
        **read_doubt(config),
        visible_share=average_shares(parts),
    )


def pool_results(
    config: FrozenConfigDict,
    landmarks: Sequence[Landmark],
    runs: list[dict],
    tested: list[Part],
    external: list[Part],
    ensemble: Part | None,
    region: Region | None,
) -> dict:
    """The content of results.json.

    Args:
      runs: each fold's own results.
      tested, external: each fold's test cases, and the external ones.
      ensemble: of `average_parts`, where there are external cases.
      region: of the calibration on all folds.
    """
    results = {
        "folds": [{key: value for key, value in run.items() if key != "config"} for run in runs],
        "pooled": summarise(config, landmarks, tested, region),
    }
    if external:
        results["external"] = summarise(config, landmarks, external, region) | {
            "models": len(external)
        }
        results["external"][ENSEMBLE] = summarise(config, landmarks, [ensemble], region)
    if aligned.is_on(config):
        results["second_steps"] = min(run["second_steps"] for run in runs)
    return results | describe_run(
        config,
        steps=max(run["steps"] for run in runs),
        seconds=sum(run["seconds"] for run in runs),
    )


def _format_mean(results: dict) -> str:
    if results["d_mean_mm"] is None:
        return "not measured"
    interval = results["d_mean_ci_mm"]
    between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{results['d_mean_mm']:.2f} mm{between}"


def _print_results(workdir: Path, results: dict) -> None:
    print(f"all {len(results['folds'])} folds: {format_results(results['pooled'])}")
    if external := results.get("external"):
        print(
            f"external, {external['cases']} cases: d-mean {_format_mean(external)}, "
            f"ensemble {_format_mean(external[ENSEMBLE])}"
        )
    print_report(workdir)
