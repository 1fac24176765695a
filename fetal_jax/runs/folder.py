"""What a run leaves beside its checkpoints, so that it can be resumed, evaluated and used.

config.json is the resolved config. data.json is what the data decided: the landmarks, the
preprocessing, the split of the cases, and the mean position of each landmark in the training cases.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fetal_jax.data import folds
from fetal_jax.data.file_digests import Digests, find_changes
from fetal_jax.data.landmark_table import Landmark, index_mirrors
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.tables import shorten
from fetal_jax.runs.calibrations import Calibrations, from_content, to_content
from fetal_jax.runs.config_table import complete_config

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

DIGEST = "sha256"
OWN_FILES = ("config.json", "data.json", "results.json", "results.csv", "external.csv")
OWN_FILES += ("measurements.csv", "metrics.jsonl", "calibration.json", "usual.json")
OWN_FILES += ("predictions.npz",)
FOLDS_CSV = "folds.csv"  # of a cross-validation: case, fold
# What a run may be started again with: how long, how to log, what to keep, what to run on.
FREE_KEYS = (
    *("train.steps", "train.epochs", "aligned.steps", "log.", "report."),
    *("data.cache_grids", "devices.", "model.remat", "evaluation.region_share"),
)


@dataclass(frozen=True)
class DataRecord:
    """Content of data.json.

    splits: split -> names of its cases.
    guess_mm: [L][3] in grid mm, the mean positions in training.
    visible_share: [L], of the training cases that say it, in how many each landmark can be seen;
      None where none says of any landmark that it cannot.
    extent_mm: the shortest and the longest of the training volumes; digests: of the files that
      were learned from and judged by; cohort: split -> of `cohort.describe_cohort`. None of an
      older run.
    """

    landmarks: tuple[Landmark, ...]
    preprocessing: Preprocessing
    splits: dict[str, list[str]]
    guess_mm: list[list[float]]
    visible_share: list[float] | None = None
    extent_mm: tuple[float, float] | None = None
    digests: Digests | None = None
    cohort: dict[str, dict] | None = None

    @property
    def labels(self) -> list[str]:
        return [landmark.label for landmark in self.landmarks]

    @property
    def mirror_index(self) -> np.ndarray | None:
        return index_mirrors(self.landmarks)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of a run, with a digest of its own content as the last value."""
    content = content | {DIGEST: _digest(content)}
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A file of `write_json`.

    Raises:
      InputError: it is not there, or not as it was written.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: expected a file of a run, got no such file") from None
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a file of a run, got {str(content)[:80]!r}")
    stated, digest = content.pop(DIGEST, None), _digest(content)
    if stated != digest:
        came = "other values" if stated else f"no {DIGEST}, as of another version"
        raise InputError(
            f"{path}: expected what the run wrote, got {came}; whoever means these values writes "
            f'"{DIGEST}": "{digest}" into it'
        )
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def claim_folder(workdir: Path, config: ConfigDict) -> None:
    """Save the config in a run's folder; where training has begun, it must be the one of then.

    Raises:
      InputError: the folder's run was started with another config; the keys are named.
    """
    path = workdir / "config.json"
    wanted = json.loads(config.to_json())
    _check_own(workdir)
    if has_begun(workdir) and path.exists():
        begun = read_json(path)
        both = map(complete_config, (begun, wanted))
        before, after = (flatten_dict(one, sep=".") for one in both)
        changed = [
            f"{key} ({before.get(key)} before, {after.get(key)} now)"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and not key.startswith(FREE_KEYS)
        ]
        if changed:
            raise InputError(
                f"{path}: expected the config that this run was started with, got other values of "
                f"{', '.join(changed)}; give another --workdir"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def _check_own(workdir: Path) -> None:
    """Raise an InputError for a folder with files named as a run's that are somebody else's."""
    names = [name for name in OWN_FILES if (workdir / name).exists()]
    if not names or has_begun(workdir):
        return
    try:
        is_run = {"seed", "train"} <= read_json(workdir / "config.json").keys()
    except InputError:
        is_run = False
    if not is_run:
        raise InputError(
            f"{workdir}: expected a new folder, or that of a run, got one with {shorten(names)} "
            "and no run's config.json: give another --workdir"
        )


@contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Nobody else writes into a run's folder meanwhile: WORKDIR/.lock, which a kill lets go.

    Where there are no such locks (Windows, some network disks) nothing is held. Folders that were
    not there, and are left empty, are removed again.

    Raises:
      InputError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / ".lock"
    with _lock(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()  # which ends at one that is not empty


def _lock(path: Path) -> TextIO:
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            came = file.read() or "another process"
            file.close()
            raise InputError(
                f"{path.parent}: expected a folder that no other run is at work in, got {came}: "
                "wait for it, or give another --workdir"
            ) from None
        except OSError:  # a file system without locks
            return file
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()  # whoever held it has just removed it


def has_begun(workdir: Path) -> bool:
    """Whether the folder has a checkpoint."""
    return any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*"))


def claim_data(workdir: Path, record: DataRecord) -> None:
    """Save the data record; where training has begun, the data set must be the one of then.

    Raises:
      InputError: a resumed run would train on other cases, perhaps on those that test it.
    """
    if has_begun(workdir):
        before = read_data_record(workdir)
        for name in ("labels", "splits"):
            if getattr(before, name) != getattr(record, name):
                raise InputError(
                    f"{workdir}/data.json: expected the data set that this run began with, "
                    f"got other {name}; give another --workdir"
                )
        learned = {*before.splits["train"], *before.splits["validation"]}
        was = {name: d for name, d in (before.digests or {}).items() if name in learned}
        if changed := find_changes(was, record.digests or {}):
            raise InputError(
                f"{workdir}/data.json: expected the files that this run began with, got another "
                f"{shorten(changed)}; give another --workdir"
            )
    write_json(workdir / "data.json", asdict(record))


def renew_digests(workdir: Path, record: DataRecord, digests: Digests) -> None:
    """Keep what the test cases are judged by now, in data.json."""
    if record.digests is not None:
        write_json(workdir / "data.json", asdict(replace(record, digests=record.digests | digests)))


def name_changes(workdir: Path, digests: Digests) -> list[str]:
    """Sentences about files of a run's cases that are others than when it learned and judged.

    Args:
      digests: of the files as they are now.
    """
    record = read_data_record(workdir)
    before = record.digests or {}
    tested = {name: d for name, d in before.items() if name in record.splits["test"]}
    learned = {name: d for name, d in before.items() if name not in tested}
    said = []
    if changed := find_changes(learned, digests):
        said.append(
            f"changed since {workdir} learned from it: {shorten(changed)}; it goes on from what it "
            "learned, another --workdir learns anew"
        )
    if changed := find_changes(tested, digests):
        said.append(
            f"changed since {workdir} was judged by it: {shorten(changed)}; --mode=evaluate "
            f"--workdir={workdir} judges anew"
        )
    return said


def read_data_record(workdir: Path) -> DataRecord:
    """Raises InputError where the folder is not that of a run, or of another version."""
    path = workdir / "data.json"
    content = read_json(path)
    try:
        preprocessing = content["preprocessing"]
        preprocessing["percentiles"] = tuple(preprocessing["percentiles"])
        splits = content["splits"]
        return DataRecord(
            tuple(Landmark(**row) for row in content["landmarks"]),
            Preprocessing(**preprocessing),
            {split: splits[split] for split in folds.SPLITS},
            content["guess_mm"],
            content.get("visible_share"),
            tuple(content["extent_mm"]) if content.get("extent_mm") else None,
            content.get("digests"),
            content.get("cohort"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the data record of a run, got {error}") from None


def write_calibrations(workdir: Path, calibrations: Calibrations) -> None:
    """calibration.json: what confidence, chances and radii of the best checkpoint are worth."""
    write_json(workdir / "calibration.json", to_content(calibrations))


def read_calibrations(workdir: Path) -> Calibrations:
    """With no calibration.json, as before the end of training, a confidence is the map's mass."""
    path = workdir / "calibration.json"
    if not path.exists():
        return Calibrations()
    content = read_json(path)
    try:
        return from_content(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the calibration of a run, got {error}") from None
