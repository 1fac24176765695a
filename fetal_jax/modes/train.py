"""`--mode=train`: one run, from where its folder has got to, and the test cases once at its end."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax import metrics
from fetal_jax.conformal import Region, enough_subjects
from fetal_jax.data import annotation_check, folds, loader
from fetal_jax.data.age_balance import weigh_ages
from fetal_jax.data.cases import PreparedCases, place_anew, place_cases
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.file_digests import Digests, digest_cases
from fetal_jax.data.from_config import (
    build_place,
    choose_cache,
    format_splits,
    open_dataset,
    prepare_cases,
    read_preprocessing,
    resolve_grid,
    split_dataset,
)
from fetal_jax.data.placement import (
    Placement,
    frame_placement,
    measure_extent,
    upright_placement,
)
from fetal_jax.data.twins import check_splits
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import Diverged, InputError
from fetal_jax.examples import Examples, ask_all
from fetal_jax.io.tables import shorten
from fetal_jax.io.volumes import read_header
from fetal_jax.modes.evaluate import evaluate_run
from fetal_jax.modes.report import finish_report, print_report
from fetal_jax.progress import format_seconds
from fetal_jax.report import pictures
from fetal_jax.runs import aligned, face_frame, folder, start_from
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.cohort import describe_cohort
from fetal_jax.runs.config_table import check_config
from fetal_jax.runs.finished import SecondLook, open_second, read_finished
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.out_of_fold import fit_points
from fetal_jax.runs.predictions import recalibrate
from fetal_jax.runs.results import format_results
from fetal_jax.runs.search import predict_cases
from fetal_jax.runs.usual import learn_usual, write_usual
from fetal_jax.training import checkpoint, fit, parallel
from fetal_jax.training.compiling import run_once
from fetal_jax.training.devices import print_devices
from fetal_jax.training.from_config import (
    build_finder,
    build_optimizer,
    build_step,
    check_devices,
    count_parameters,
    count_steps,
)
from fetal_jax.training.log import Log
from fetal_jax.training.processes import from_first, is_first, local_share, localise
from fetal_jax.training.step import TrainState, create_state
from fetal_jax.visibility_model import VisibilityModel, fit_visibility

VALIDATION_IMAGES = 10  # of a validation case in TensorBoard, over a run
LOOKS_A_CASE, MOST_LOOKS = 2, 400  # of training cases, from which it learns what can be seen


def run_train(config: ConfigDict, workdir: Path) -> None:
    """Train, or go on, then evaluate the test cases once."""
    config, dataset = open_run_data(config)
    splits = split_dataset(config, dataset)
    config = resolve_grid(config, dataset, splits["train"] + splits["validation"])
    steps = count_steps(config, len(splits["train"]))
    results = from_first(lambda: _claim_run(config, workdir, steps))
    if results:
        print(f"{workdir} is finished: {results['steps']} steps")
        digests = digest_cases(dataset.cases, choose_cache(config))
        for sentence in from_first(lambda: folder.name_changes(workdir, digests)):
            print(f"note: {sentence}")
        now = {split: [dataset.cases[i].name for i in splits[split]] for split in folds.SPLITS}
        if from_first(lambda: folder.read_data_record(workdir).splits) != now:
            print(f"note: the split is another one now; {workdir} keeps to its own")
        finish_report(config, workdir)
    else:
        print(format_splits(config, dataset, splits))
        prepared = prepare_cases(config, dataset, splits["test"])
        from_first(lambda: warn_of_annotations(config, dataset, [workdir]))
        results = train_split(config, workdir, dataset, prepared, splits)
    print(format_results(results))
    print_report(workdir)


def open_run_data(config: ConfigDict) -> tuple[FrozenConfigDict, Dataset]:
    """Check the config, open its data set, print what is assumed.

    The grid may still be open: which cases decide it depends on the split, see `resolve_grid`.
    """
    config = check_config(config)
    check_devices(config)
    print_devices()
    dataset = open_dataset(config)
    for sentence in dataset.assumptions:
        print(f"note: {sentence}")
    return config, dataset


def warn_of_annotations(config: FrozenConfigDict, dataset: Dataset, runs: Iterable[Path]) -> None:
    """Print what looks wrong, before hours are spent on it.

    Args:
      runs: folders; once one of them has begun it was said, and the data are those of then.
    """
    if any(map(folder.has_begun, runs)):
        return
    said = annotation_check.describe_worst(dataset, config.data.coordinate_system or None)
    if said:
        print(f"note: {said}")


def _claim_run(config, workdir: Path, steps: int) -> dict | None:
    if (workdir / folder.FOLDS_CSV).exists():
        raise InputError(f"{workdir}: expected a training run's folder, got a cross-validation's")
    folder.claim_folder(workdir, config)
    return read_finished(workdir, steps, aligned.count_steps(config))


def train_split(
    config: FrozenConfigDict,
    workdir: Path,
    dataset: Dataset,
    prepared: PreparedCases,
    splits: dict[str, list[int]],
    *,
    report: bool = True,
) -> dict:
    """Train on one split of the cases, from where the folder has got to, and evaluate its test.

    Args:
      prepared: all cases of the data set, on their grids.
      splits: split -> indices of its cases.
      report: whether to write the run's page; a fold is part of another.

    Returns:
      What results.json holds.
    """
    parts = {split: prepared.select(splits[split]) for split in folds.SPLITS}
    training, validation = parts["train"], parts["validation"]
    _check_learnable(training, dataset.labels)
    check_splits(prepared, splits)
    record = DataRecord(
        dataset.landmarks,
        read_preprocessing(config),
        {split: [case.name for case in parts[split].cases] for split in folds.SPLITS},
        training.mean_positions().tolist(),
        training.share_visible(),
        _find_extents(config, training),
        _digest_parts(config, parts),
        {split: describe_cohort(part.cases) for split, part in parts.items()},
    )
    tested = record.splits["test"]
    from_first(lambda: start_from.check_run(config, workdir, record.digests, tested))
    from_first(lambda: folder.claim_data(workdir, record))
    began = time.monotonic()
    if aligned.is_on(config):
        _train_both(config, workdir, dataset, record, training, validation)
    else:
        _train_network(config, workdir, dataset, training, validation)
    print(f"trained for {format_seconds(time.monotonic() - began)}; evaluating the test cases")
    fitted = calibrate_run(config, workdir, record, training, validation)
    if report:  # a fold's radii come from the other folds
        from_first(partial(_print_region, fitted.region))
    return evaluate_run(config, workdir, record, parts["test"], report=report)


def _check_learnable(training: PreparedCases, labels: Sequence[str]) -> None:
    """Raise an InputError for landmarks that no training case has: none could be found."""
    nowhere = [
        label for label, one in zip(labels, training.present.T, strict=True) if not one.any()
    ]
    if len(nowhere) == len(labels):
        raise InputError(
            f"expected landmarks in the {len(training)} training cases, got none that is set"
        )
    if nowhere:
        raise InputError(
            f"expected each landmark in some training case, got none of {len(training)} with "
            f"{shorten(nowhere)}: another split, or config.data.labels without them"
        )


def _digest_parts(config: FrozenConfigDict, parts: dict[str, PreparedCases]) -> Digests:
    cases = [case for part in parts.values() for case in part.cases]
    return digest_cases(cases, choose_cache(config))


def _find_extents(config: FrozenConfigDict, training: PreparedCases) -> tuple[float, float]:
    trust = dict(trust_missing_affine=config.data.trust_missing_affine)
    each = [measure_extent(*read_header(c.volume_path, **trust)) for c in training.cases]
    return min(each), max(each)


def _train_network(
    config: FrozenConfigDict,
    workdir: Path,
    dataset: Dataset,
    training: PreparedCases,
    validation: PreparedCases,
    place: Callable | None = None,
    expected_vox: np.ndarray | None = None,
) -> None:
    """One network, from where its folder has got to.

    Args:
      place: of `cases.place_anew`, where each step has grids of its own.
      expected_vox: of `build_detector`.
    """
    place = place or build_place(config, training)
    steps = count_steps(config, len(training))
    points = (training.points_vox, training.present)
    detector = build_detector(config, len(dataset.labels), points, expected_vox)
    optimizer, schedule = build_optimizer(config, steps)
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    state = run_once(create, jax.random.fold_in(jax.random.key(config.seed), 0))
    print(f"{count_parameters(state.params):,} parameters, {steps} steps, into {workdir}")
    build, second = partial(build_detector, config), workdir.name == aligned.FOLDER
    start = from_first(
        lambda: start_from.begin(
            config, workdir, build, state.params, dataset.labels, second=second
        )
    )
    if start.taken:
        params = state.params if start.params is None else start.params
        optimizer, schedule = build_optimizer(config, steps, start.taken)
        state = TrainState(state.step, params, optimizer.init(params))
    find = build_finder(config, detector)
    step = build_step(config, detector, optimizer, dataset.mirror_index)
    _fit(
        config,
        workdir,
        state,
        parallel.map_step(step, depth=config.devices.depth),
        training,
        _bind_validation(find, validation, dataset.labels),
        steps=steps,
        schedule=schedule,
        place=place,
    )


def _train_both(
    config: FrozenConfigDict,
    workdir: Path,
    dataset: Dataset,
    record: DataRecord,
    training: PreparedCases,
    validation: PreparedCases,
) -> None:
    """The first network, and the second in the frames of the cases' own points.

    Where the first one is to look from all sides, it learns faces that stand upright. The second
    one's frames are as far off as those of found points are.
    """
    posed = training.select(face_frame.find_posed(training.points_mm))
    frame, places = face_frame.fit_training_frame(
        config, posed.points_mm, posed.visible, dataset.mirror_index
    )
    from_first(lambda: face_frame.write_frame(workdir, frame))
    posed_validation = validation.select(face_frame.find_posed(validation.points_mm))

    def bind(placement: Placement, cases: PreparedCases, matrices: np.ndarray) -> Callable:
        asked, cache = read_preprocessing(config), choose_cache(config)
        return place_anew(cases, placement, asked, frames=matrices, cache=cache)

    def place_validation(placement: Placement, seed: list[int] | None = None) -> PreparedCases:
        if not len(posed_validation):
            return posed_validation
        there = face_frame.place_truth(frame, posed_validation.points_mm)
        place = bind(placement, posed_validation, there)
        return place_cases(posed_validation, place, seed, scratch=choose_cache(config))

    if config.aligned.poses > 1:
        upright = upright_placement(side=config.grid.side, spacing_mm=config.grid.spacing_mm)
        place = bind(upright, posed, places)
        training = place_cases(posed, place, scratch=choose_cache(config))
        validation = place_validation(upright)
    _train_network(config, workdir, dataset, training, validation)
    print(face_frame.describe_box(frame))
    derived = aligned.derive_config(config, frame.box)
    placement = frame_placement(frame.box, aligned.read_jitter(config))
    place = bind(placement, posed, places)
    validation = place_validation(placement, [config.seed, 7])
    expected_vox = face_frame.expect_landmarks(record.visible_share, frame)
    _train_network(
        derived,
        workdir / aligned.FOLDER,
        dataset,
        posed,
        validation,
        place=place,
        expected_vox=expected_vox,
    )
    if record.visible_share is not None:
        second = open_second(config, workdir, record)
        learned = learn_visibility(second, posed, place, seed=config.seed)
        from_first(lambda: aligned.write_visibility(workdir, learned))


def learn_visibility(
    second: SecondLook, training: PreparedCases, place: Callable, *, seed: int
) -> VisibilityModel:
    """What tells whether a landmark can be seen, by what a trained network paints of its cases.

    Args:
      place: of `cases.place_anew`; as in training, no look is quite like another.
    """
    find, found, grids = build_finder(second.config, second.detector), [], []
    looks, batch = min(LOOKS_A_CASE * len(training), MOST_LOOKS), second.config.evaluation.batch
    looks += -looks % batch
    chosen = [loader.sample_indices(len(training), n, batch=1, seed=seed)[0] for n in range(looks)]
    points_mm = training.points_mm[chosen]
    for start in range(0, looks, batch):
        some = range(start, start + batch)
        placed = [place(chosen[n], np.random.default_rng([seed, 6, n])) for n in some]
        there = [grid.to_voxels(points_mm[n]) for n, (_, grid) in zip(some, placed, strict=True)]
        volumes = np.stack([volume for volume, _ in placed])
        found.extend(find(second.params, ask_all(volumes, np.stack(there))).evidence)
        grids.extend(grid for _, grid in placed)
    inside = np.stack([grid.contains(each) for grid, each in zip(grids, points_mm, strict=True)])
    judged = training.judged[chosen] & (inside | ~training.present[chosen])
    return fit_visibility(np.stack(found), training.visible[chosen], judged)


def _fit(
    config: FrozenConfigDict,
    workdir: Path,
    state: TrainState,
    step_function: Callable,
    training: PreparedCases,
    validate: Callable | None,
    *,
    steps: int,
    schedule: optax.Schedule,
    place: Callable | None,
) -> None:
    """`fit.fit` from the latest checkpoint of the folder, or from `state`, with what it leaves.

    Args:
      validate: parameters -> (d-mean in mm, draw() -> picture), or None.
    """
    first, batch, seed = is_first(), config.train.batch, config.seed
    weights = weigh_cases(config, training)
    manager = checkpoint.open_checkpoints(workdir / "checkpoints") if first else None
    start = from_first(lambda: manager.latest_step() or 0)
    if start:
        fresh = state
        state = from_first(lambda: checkpoint.restore_checkpoint(manager, start, fresh))
        print(f"going on from step {start} of {steps}")
    log = Log(workdir if first else None, resumed_at=start, last_step=steps, schedule=schedule)
    seldom = max(1, steps // config.log.save_every // VALIDATION_IMAGES)

    def load(step: int) -> Examples:
        return loader.load_examples(
            training,
            step - 1,
            batch=batch,
            seed=seed,
            share=local_share(batch),
            weights=weights,
            place=place,
        )

    def save(latest: fit.StepMetrics, state: TrainState) -> None:
        step, d_mean = latest.step, None
        if validate is not None:
            d_mean, draw = validate(localise(state.params))
        log.write(latest, saved=True, d_mean_mm=d_mean)
        if not first:
            return
        # without validation the latest counts as the best
        rank = 1.0 / step if d_mean is None else d_mean
        checkpoint.save_checkpoint(manager, step, localise(state), rank)
        due = step == steps or step // config.log.save_every % seldom == 0
        if d_mean is not None and due:
            try:
                log.show(step, draw())
            except Exception as error:  # what is saved does not hang on a picture
                print(f"warning: no picture of step {step}: {error!r}")

    try:
        fit.fit(
            state,
            step_function,
            loader.prefetch(load, range(start + 1, steps + 1)),
            key=jax.random.fold_in(jax.random.key(seed), 1),  # 0 made the parameters
            last_step=steps,
            log_every=config.log.every,
            log=log.write,
            save_every=config.log.save_every,
            save=save,
        )
    except fit.NotFinite as error:
        chosen = loader.sample_indices(
            len(training), error.step - 1, batch=batch, seed=seed, weights=weights
        )
        names = ", ".join(training.cases[i].name for i in chosen)
        raise Diverged(f"{error}, on {names}; a lower config.optim.lr may help") from None
    finally:
        log.close()
        if first:
            manager.close()


def weigh_cases(config: FrozenConfigDict, training: PreparedCases) -> np.ndarray | None:
    """How often each case trains, by its gestational age; None: all as often."""
    if not config.train.balance_age:
        return None
    return weigh_ages([case.age_weeks for case in training.cases])


def _bind_validation(find, validation: PreparedCases, labels: list[str]) -> Callable | None:
    """Parameters -> (d-mean of the validation cases, draw() -> a picture of the first one)."""
    if not len(validation) or not validation.visible.any():
        return None

    def validate(params):
        found = find(params, ask_all(validation.volumes, validation.points_vox))

        def draw() -> np.ndarray:
            first = validation.select([0])
            return pictures.to_array(pictures.draw_cases(first, labels, found.points_vox[:1]))

        return mean_error(validation.to_world(found.points_vox), validation), draw

    return validate


def mean_error(points_mm: np.ndarray, cases: PreparedCases) -> float:
    """d-mean in mm over the visible landmarks, points [N, L, 3]; NaN if there are none."""
    errors = metrics.radial_errors(points_mm, cases.points_mm)
    return float(np.mean(errors[cases.visible])) if cases.visible.any() else float("nan")


def calibrate_run(
    config: FrozenConfigDict,
    workdir: Path,
    record: DataRecord,
    training: PreparedCases,
    validation: PreparedCases,
) -> Calibrations:
    """Learn what the best checkpoints' confidence and chances are worth, on the validation cases,
    and how landmarks usually lie to each other.
    """
    fitted, every = Calibrations(), []
    if len(validation):
        found, _, _ = predict_cases(config, workdir, record, validation)
        asked = config.evaluation
        fitted = fit_points([(validation, found)], asked.confidence_radius_mm, asked.region_share)
        every = [recalibrate(found, fitted)]
    from_first(lambda: folder.write_calibrations(workdir, fitted))
    min_visible = aligned.read_min_visible(config)
    given = (training.points_mm, training.subjects, training.visible, record.mirror_index, every)
    from_first(lambda: write_usual(workdir, learn_usual(*given, min_visible=min_visible)))
    return fitted


def _print_region(region: Region | None) -> None:
    if region is not None and math.isinf(region.size):
        print(
            f"note: no radius that holds {100 * region.share:g} % of the points: "
            f"{region.subjects} validation subjects are too few to learn it from, "
            f"{enough_subjects(region.share)} are enough (config.data.validation_share)"
        )
