"""`--mode=evaluate`: what a run's best checkpoint finds in its test cases, and how good that is."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import FrozenConfigDict

from fetal_jax.conformal import Region
from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.file_digests import digest_cases
from fetal_jax.data.from_config import choose_cache
from fetal_jax.data.landmark_table import Landmark, index_mirrors
from fetal_jax.detectors.from_config import ela_radii, find_title
from fetal_jax.modes.report import print_report, report_run
from fetal_jax.runs import aligned, folder, start_from
from fetal_jax.runs.finished import Restored, open_config, open_tested
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.predictions import Predictions
from fetal_jax.runs.results import describe_program, format_results, write_results
from fetal_jax.runs.search import Stages, predict_cases
from fetal_jax.runs.stages import list_stages, summarise_stages, write_stages
from fetal_jax.runs.summary import Part, guess_errors, make_part, summarise_parts
from fetal_jax.training.devices import describe_devices, print_devices
from fetal_jax.training.log import read_seconds
from fetal_jax.training.processes import from_first


def run_evaluate(workdir: Path) -> None:
    """Evaluate a run's test cases again, with its best checkpoint, and report it."""
    config, record = from_first(lambda: (open_config(workdir), folder.read_data_record(workdir)))
    print_devices()
    cases = open_tested(config, workdir, record)
    digests = digest_cases(cases.cases, choose_cache(config))
    results = evaluate_run(config, workdir, record, cases)
    from_first(lambda: folder.renew_digests(workdir, record, digests))
    print(format_results(results))
    print_report(workdir)


def evaluate_run(
    config: FrozenConfigDict,
    workdir: Path,
    record: DataRecord,
    cases: PreparedCases,
    *,
    report: bool = True,
) -> dict:
    """Predict the test cases with the best checkpoint; write and return what came of it."""
    predictions, restored, stages = predict_cases(config, workdir, record, cases)
    results = from_first(
        lambda: _write_run(config, workdir, record, cases, predictions, restored, stages)
    )
    if report:
        report_run(config, workdir, record.labels, [(workdir, cases, predictions)])
    return results


def _write_run(
    config,
    workdir: Path,
    record,
    cases,
    predictions: Predictions,
    restored: Restored,
    stages: Stages | None,
) -> dict:
    part = judge_predictions(config, record, cases, predictions)
    region = folder.read_calibrations(workdir).region
    results = summarise(config, record.landmarks, [part], region) | describe_run(
        config, steps=restored.last_step, seconds=read_seconds(workdir)
    )
    results |= {"best_step": restored.best_step} | start_from.describe(workdir)
    if stages is not None:
        results["second_steps"] = stages.second_steps
        found = list_stages(stages.coarse.points_mm, stages.looks)
        results["stages"] = summarise_stages([(cases, found)])
        write_stages(workdir, found)
    write_results(
        workdir,
        results,
        record.labels,
        [part],
        min_visible=aligned.read_min_visible(config),
    )
    return results


def judge_predictions(
    config: FrozenConfigDict,
    record: DataRecord,
    cases: PreparedCases,
    predictions: Predictions,
    fold: str = "",
) -> Part:
    """What a model found in cases, beside a guess and as measurements of faces."""
    return make_part(
        fold,
        cases,
        predictions,
        record.labels,
        guess_errors(cases, record.guess_mm),
        **read_doubt(config),
        visible_share=record.visible_share,
    )


def read_doubt(config: FrozenConfigDict) -> dict[str, float]:
    """From what confidence, and what chance to be seen, a point is measured from."""
    return {
        "min_confidence": config.evaluation.min_confidence,
        "min_visible": aligned.read_min_visible(config),
    }


def summarise(
    config: FrozenConfigDict,
    landmarks: Sequence[Landmark],
    parts: list[Part],
    region: Region | None,
) -> dict:
    """`summary.summarise_parts` with the config's radii and age groups.

    Args:
      region: of the run's calibration, whatever the config says by now.
    """
    return summarise_parts(
        parts,
        [landmark.label for landmark in landmarks],
        radii_mm=list(config.evaluation.radii_mm),
        ela_radii_mm=ela_radii(config),
        age_groups_weeks=list(config.evaluation.age_groups_weeks),
        confidence_radius_mm=config.evaluation.confidence_radius_mm,
        mirror_index=index_mirrors(landmarks),
        min_visible=aligned.read_min_visible(config),
        region_share=region.share if region else 0.0,
    )


def describe_run(config: FrozenConfigDict, *, steps: int, seconds: float) -> dict:
    """What results.json says of how a run was made."""
    return {
        "detector": find_title(config),
        "config": config.to_dict(),
        "seed": config.seed,
        "steps": steps,
        "seconds": seconds,
        "device": describe_devices(),
        "program": describe_program(),
    }
