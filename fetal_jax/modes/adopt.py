"""`--mode=adopt`: predictions that a person corrected, taken into a data set.

A landmark file counts as looked at once it is not as `--mode=predict` wrote it: 3D Slicer writes
other bytes, also where no point was moved. DATA/adopted.csv lists what became of each point.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.data.adopted_case import NewCase, append_cases, plan_case
from fetal_jax.data.dataset import list_landmark_files, list_volumes, natural_key
from fetal_jax.data.file_digests import digest_file
from fetal_jax.errors import InputError
from fetal_jax.io.files import VOLUME_SUFFIXES, split_suffix, write_atomically
from fetal_jax.io.tables import read_own_table, shorten, write_table
from fetal_jax.modes.predict import find_volumes
from fetal_jax.runs.corrections import Correction, describe_corrections, find_corrections
from fetal_jax.runs.found_files import TABLE, Written, read_predicted
from fetal_jax.runs.scan_table import FILE, read_scans

ADOPTED = "adopted.csv"
COLUMNS = (
    *("file", "sha256", "case", "label", "change", "moved_mm"),
    *("found_x", "found_y", "found_z", "x", "y", "z"),
)


class Adopted(NamedTuple):
    """A case to be taken, and what a person made of its points."""

    case: NewCase
    corrections: list[Correction]


def run_adopt(
    found: Path | None, into: Path | None, annotator: str = "", patterns: Sequence[str] = ()
) -> None:
    """Copy each corrected landmark file of `found`, and its volume, into the data set `into`.

    Volumes come first, landmarks last: stopped half way, the same command goes on. Nothing that is
    there is overwritten.

    Args:
      found: a folder of `--mode=predict`.
      into: a data set's folder, or a new one.
      annotator: whose readings they are; '': they are the cases' own landmarks.
      patterns: of volumes that are not where `found` says they were.

    Raises:
      InputError: after all others are taken, one line for each file that could not be.
    """
    _check_arguments(found, into, annotator)
    predicted, problems = read_predicted(found), []
    if not predicted:
        raise InputError(f"{found}: expected a folder of --mode=predict, with {TABLE}, got none")
    scans = read_scans(found)
    moved = find_volumes(list(patterns)) if patterns else []
    scans |= {split_suffix(path, VOLUME_SUFFIXES)[0]: path for path in moved}
    before = _read_adopted(into)
    files = list_landmark_files(found, problems)
    corrected, unsaved = _find_corrected(files, predicted)
    volumes, taken = list_volumes(into, problems), []
    for name in sorted(corrected, key=natural_key):
        path = files[name]
        try:
            corrections = find_corrections(path, predicted[path.name])
            volume = _find_volume(path, scans.get(name))
            case = plan_case(into, name, volume, path, annotator, volumes)
        except InputError as error:
            problems += error.problems
            continue
        volumes.setdefault(name, volume)  # no other one may be a copy of it
        taken.append(Adopted(case, corrections))
    _write(into, [one for one in taken if not one.case.is_there], before)
    _print_adopted(into, taken, unsaved)
    if problems:
        raise InputError(*problems)


def _check_arguments(found: Path | None, into: Path | None, annotator: str) -> None:
    if found is None:
        raise InputError("--mode=adopt: expected --from, a folder of --mode=predict, got none")
    if into is None:
        raise InputError("--mode=adopt: expected --into, a data set's folder, got none")
    if not found.is_dir():
        raise InputError(f"--from={found}: expected a folder of landmark files, got no such folder")
    if annotator and (not annotator.isprintable() or set(annotator) & set("./\\ ")):
        raise InputError(f"--annotator: expected a name without dots and blanks, got {annotator!r}")


def _find_corrected(files: dict[str, Path], predicted: dict[str, Written]) -> tuple[set[str], int]:
    """Names of the files that somebody saved, and how many nobody did.

    Those that were never predicted are printed.
    """
    corrected, unsaved = set(), 0
    for name, path in files.items():
        if path.name not in predicted:
            print(f"note: {path} was not predicted: it is left out")
        elif digest_file(path, None) != predicted[path.name].digest:
            corrected.add(name)
        else:
            unsaved += 1
    return corrected, unsaved


def _find_volume(path: Path, volume: Path | None) -> Path:
    if volume is None or not volume.is_file():
        came = f"{volume}, which is not there" if volume else f"none in {path.parent / FILE}"
        raise InputError(f"{path}: expected its volume, got {came}: --volumes=PATH names it")
    return volume


def _write(into: Path, taken: list[Adopted], before: list[list[str]]) -> None:
    for one in taken:
        for source, target in one.case.volume.items():
            if not target.exists():
                write_atomically(target, source.read_bytes())
    added = append_cases(into / "cases.csv", [one.case.name for one in taken])
    if added:
        print(
            f"{into}/cases.csv: {len(added)} rows added ({shorten(added)}), each case its own "
            "subject and, where there is a split, in train: correct that where it is wrong"
        )
    if taken:
        targets = {one.case.landmarks[1].name for one in taken}
        # of a start that was stopped before their files were there
        kept = [row for row in before if row[0] not in targets]
        write_table(into / ADOPTED, COLUMNS, [*kept, *(row for one in taken for row in _list(one))])
    for one in taken:
        source, target = one.case.landmarks
        write_atomically(target, source.read_bytes())


def _list(one: Adopted):
    source, target = one.case.landmarks
    digest = digest_file(source, None)
    for each in one.corrections:
        numbers = [each.moved_mm, *each.found_mm, *each.given_mm]
        told = [f"{value:.4f}" if np.isfinite(value) else "" for value in numbers]
        yield [target.name, digest, one.case.name, each.label, each.change, *told]


def _read_adopted(into: Path) -> list[list[str]]:
    rows = read_own_table(into / ADOPTED, COLUMNS, "it stays as it is")
    return [list(row.values()) for _, row in rows]


def _print_adopted(into: Path, taken: list[Adopted], unsaved: int) -> None:
    new = [one for one in taken if not one.case.is_there]
    for one in new:
        print(f"  {one.case.name}: {describe_corrections(one.corrections)}")
    print(f"{len(new)} cases taken into {into}; {into / ADOPTED} has each point")
    if len(taken) > len(new):
        print(f"{len(taken) - len(new)} are there already")
    if unsaved:
        print(f"{unsaved} files that nobody saved are left out")
