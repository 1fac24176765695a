"""A run that has been trained: is it finished, its best checkpoints, its test cases."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import FrozenConfigDict

from fetal_jax.data.cases import PreparedCases
from fetal_jax.data.dataset import Dataset
from fetal_jax.data.from_config import open_dataset, prepare_cases
from fetal_jax.detectors.detector import Detector
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.errors import InputError
from fetal_jax.runs import aligned, face_frame, folder
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.config_table import check_config
from fetal_jax.runs.face_frame import Frame
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.results import read_results
from fetal_jax.training import checkpoint
from fetal_jax.training.processes import from_first
from fetal_jax.visibility_model import VisibilityModel


class Restored(NamedTuple):
    """The best checkpoint of a run, its step, and the latest step."""

    params: dict
    best_step: int
    last_step: int


class SecondLook(NamedTuple):
    """The second network of a run that looks twice."""

    config: FrozenConfigDict  # of `aligned.derive_config`
    frame: Frame
    detector: Detector
    params: dict
    last_step: int
    visibility: VisibilityModel | None


class OpenedModels(NamedTuple):
    """A run, or the runs of a cross-validation's folds, ready to be used."""

    config: FrozenConfigDict
    record: DataRecord
    detector: Detector
    params: list[dict]  # of each
    calibrations: Calibrations  # of the mean of what they say
    seconds: list[SecondLook]  # of each, none where the runs look once


def read_finished(workdir: Path, steps: int, second_steps: int = 0) -> dict | None:
    """results.json of a run whose networks have done so many steps, else None.

    Raises:
      InputError: a file of that name that is none.
    """
    path = workdir / "results.json"
    if not path.exists():
        return None
    results = read_results(workdir)
    try:
        done = results["steps"] >= steps and results.get("second_steps", 0) >= second_steps
        return results if done else None
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the results of a run, got {error!r}; delete it, and the same "
            "command makes it anew"
        ) from None


def find_runs(workdir: Path) -> list[Path]:
    """The folder of a run itself, or those of a cross-validation's folds.

    Raises:
      InputError: a fold that is not finished.
    """
    if not (workdir / folder.FOLDS_CSV).exists():
        return [workdir]
    folds = open_config(workdir).crossval.folds
    runs = [workdir / f"fold{fold + 1}" for fold in range(folds)]
    for run in runs:
        if not (run / "results.json").exists():
            raise InputError(f"{run}: expected a finished fold, with results.json, got none")
    return runs


def open_config(workdir: Path) -> FrozenConfigDict:
    """A run's config, checked.

    Raises:
      InputError: there is none, or it is that of another version.
    """
    path = workdir / "config.json"
    content = folder.read_json(path)
    try:
        return check_config(content)
    except InputError as error:
        raise InputError(*(f"{path}: {line}" for line in error.problems)) from None


def open_models(workdir: Path) -> OpenedModels:
    """The best checkpoints of `find_runs`' runs."""
    runs = find_runs(workdir)
    config, record = open_config(runs[0]), folder.read_data_record(runs[0])
    detector = build_detector(config, len(record.labels))
    params = [_restore_judged(run, detector) for run in runs]
    seconds = [open_second(config, run, record) for run in runs if aligned.is_on(config)]
    calibrations = folder.read_calibrations(workdir)
    return OpenedModels(config, record, detector, params, calibrations, seconds)


def _restore_judged(workdir: Path, detector: Detector) -> dict:
    """The best checkpoint; where results.json is of another one, that is printed."""
    restored, path = restore_best(workdir, detector), workdir / "results.json"
    judged = folder.read_json(path).get("best_step") if path.exists() else None
    if judged not in (None, restored.best_step):
        print(
            f"note: {path} is of step {judged}, the best checkpoint that is there of step "
            f"{restored.best_step}: --mode=evaluate --workdir={workdir} judges it"
        )
    return restored.params


def open_second(config: FrozenConfigDict, workdir: Path, record: DataRecord) -> SecondLook:
    """The second network of a run, its best checkpoint; only the first process reads."""
    frame = from_first(lambda: face_frame.read_frame(workdir))
    derived = aligned.derive_config(config, frame.box)
    expected_vox = face_frame.expect_landmarks(record.visible_share, frame)
    detector = build_detector(derived, len(record.labels), expected_vox=expected_vox)
    best = from_first(lambda: restore_best(workdir / aligned.FOLDER, detector))
    visibility = from_first(lambda: aligned.read_visibility(workdir))
    return SecondLook(derived, frame, detector, best.params, best.last_step, visibility)


def restore_best(workdir: Path, detector: Detector) -> Restored:
    """The best checkpoint of a run, for the first process alone.

    Raises:
      InputError: there is none, or it is another network's.
    """
    path = workdir / "checkpoints"
    if not path.is_dir():
        raise InputError(f"{path}: expected the checkpoints of a run, got no such folder")
    manager = checkpoint.open_checkpoints(path)
    best = manager.best_step()
    if best is None:
        raise InputError(f"{path}: expected a checkpoint, got none: train first")
    like = jax.eval_shape(detector.init, jax.random.key(0))
    params = checkpoint.restore_params(manager, best, like)
    latest = manager.latest_step()
    manager.close()
    return Restored(params, best, latest)


def open_tested(config: FrozenConfigDict, workdir: Path, record: DataRecord) -> PreparedCases:
    """The test cases of a run, from its data set.

    Raises:
      InputError: the data set is not there, or not with all of them.
    """
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
    return prepare_cases(config, dataset, range(len(tested)))
