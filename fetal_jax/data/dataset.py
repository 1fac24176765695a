"""A data set is a folder: `volumes/`, `landmarks/` and, if wanted, two tables.

    root/volumes/CASE.nii.gz       or .nii, .nrrd, .nhdr, .mha, .mhd
    root/landmarks/CASE.mrk.json   or CASE.fcsv; beside it or instead, CASE.ANNOTATOR.mrk.json,
                                   and CASE.ANNOTATOR-2.mrk.json where one reads it again
    root/truth/CASE.mrk.json       of a phantom: the true points, which nothing is trained on
    root/cases.csv                 case, subject, site, gestational_age_weeks, split, visible
    root/landmarks.csv             label, name, mirror, definition; its order is the channels'

What an optional table or column leaves open is assumed, and each assumption is a sentence in
`Dataset.assumptions`. What contradicts itself is a problem; all problems are raised at once.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fetal_jax import metrics
from fetal_jax.data.case_table import (
    Case,
    Readings,
    find_shared_subjects,
    read_case_table,
    replace_splits,
)
from fetal_jax.data.landmark_table import Landmark, index_mirrors, read_landmark_table
from fetal_jax.data.spelling import fold_spelling, quote_alike
from fetal_jax.errors import InputError
from fetal_jax.io.files import (
    LANDMARK_SUFFIXES,
    VOLUME_SUFFIXES,
    FilePath,
    describe_link,
    split_suffix,
)
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.tables import shorten


@dataclass(frozen=True)
class Dataset:
    """Cases in natural order of their names, landmarks in the order of the channels."""

    root: Path
    cases: tuple[Case, ...]
    landmarks: tuple[Landmark, ...]
    assumptions: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The landmarks' labels, in the order of the channels."""
        return tuple(landmark.label for landmark in self.landmarks)

    @property
    def mirror_index(self) -> np.ndarray | None:
        """int [L], the permutation that swaps left and right, or None if there are no pairs."""
        return index_mirrors(self.landmarks)


def read_dataset(
    root: FilePath,
    *,
    split_csv: FilePath | None = None,
    coordinate_system: str | None = None,
    need_volumes: bool = True,
) -> Dataset:
    """Read a data set's folder: which cases, which landmarks, which split. No voxel is read.

    Args:
      root: the folder.
      split_csv: a table with the columns case and split that replaces the split of cases.csv.
      coordinate_system: "LPS" or "RAS", for `.fcsv` files that name none.
      need_volumes: False where landmarks alone will do: without a folder volumes/ the case of a
        landmark file is what stands before the last dot of its name.

    Raises:
      InputError: one line for each problem in the folder.
    """
    root = Path(root)
    problems: list[str] = []
    assumptions: list[str] = []
    cases = _match_files(root, problems, assumptions, need_volumes)
    in_files = _collect_labels(cases, coordinate_system, problems)
    landmarks = read_landmark_table(root / "landmarks.csv", in_files, problems, assumptions)
    # If a landmark file cannot be read, the union of the labels is not known either.
    known = not problems or (root / "landmarks.csv").exists()
    labels = {mark.label for mark in landmarks} if known else None
    cases = read_case_table(
        root / "cases.csv",
        cases,
        labels,
        problems,
        assumptions,
        split_elsewhere=split_csv is not None,
    )
    if split_csv is not None:
        cases = replace_splits(Path(split_csv), cases, problems, assumptions)
    source = Path(split_csv or root / "cases.csv")
    splits = [case.split for case in cases.values()]
    problems += find_shared_subjects(source, cases.values(), splits, "split")
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return Dataset(root, tuple(cases.values()), landmarks, tuple(assumptions))


def read_case_points(
    case: Case, labels: Sequence[str], *, coordinate_system: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a case's landmarks: points [L, 3] float64, RAS+ mm, NaN where absent; visible [L] bool;
    judged [L] bool, whether it is known if the landmark can be seen.

    Without a landmark file of its own a case has the mean of its annotators' readings, each
    annotator counted alike. A point that is there is visible if the case lists it as visible, or
    lists none; otherwise its annotator completed it. A landmark that a file has as undefined cannot
    be seen; of one that no file has, nothing is known.

    Args:
      case: of a data set.
      labels: L names.
      coordinate_system: "LPS" or "RAS", for `.fcsv` files that name none.

    Raises:
      InputError: a landmark file that cannot be read.
    """
    if case.landmarks_path is None:
        each, listed = [], []
        for one in case.readings:
            files = [_read_file(path, labels, coordinate_system) for path in one.paths]
            each.append(metrics.mean_known(np.stack([points for points, _ in files])))
            listed += [has for _, has in files]
        points, judged = metrics.mean_known(np.stack(each)), np.any(listed, axis=0)
    else:
        points, judged = _read_file(case.landmarks_path, labels, coordinate_system)
    listed = [case.visible is None or label in case.visible for label in labels]
    return points, np.array(listed) & np.isfinite(points).all(axis=1), judged


def read_true_points(case: Case, labels: Sequence[str]) -> np.ndarray:
    """The true points [L, 3] of a phantom, RAS+ mm; NaN where they are not known.

    Raises:
      InputError: a file that cannot be read.
    """
    if case.truth_path is None:
        return np.full((len(labels), 3), np.nan)
    return _read_file(case.truth_path, labels, None)[0]


def read_readings(
    case: Case, labels: Sequence[str], *, coordinate_system: str | None = None
) -> np.ndarray:
    """Read each annotator's first points [A, L, 3], RAS+ mm, NaN where one left a point out.

    Args and errors are those of `read_case_points`.
    """
    points = [_read_file(one.paths[0], labels, coordinate_system)[0] for one in case.readings]
    return np.stack(points) if points else np.empty((0, len(labels), 3))


def _read_file(
    path: Path, labels: Sequence[str], coordinate_system: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Points [L, 3], NaN where absent, and which of the labels [L] the file has."""
    points = read_landmarks(path, coordinate_system=coordinate_system)
    absent = np.full(3, np.nan)
    listed = np.array([label in points for label in labels], bool)
    return np.stack([points.get(label, absent) for label in labels]), listed


def select_landmarks(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The data set with only these of its landmarks, in this order.

    Raises:
      ValueError: it has no landmark of such a name.
    """
    known = dict(zip(dataset.labels, dataset.landmarks, strict=True))
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(
            f"expected landmarks of {dataset.root}, got {shorten(unknown)}; "
            f"it has {shorten(list(known))}"
        )
    chosen, assumptions = [known[label] for label in labels], dataset.assumptions
    if alone := [mark.label for mark in chosen if mark.mirror and mark.mirror not in labels]:
        chosen = [replace(mark, mirror="") for mark in chosen]
        assumptions = (*assumptions, f"no flips: {shorten(alone)} without the other side's")
    return replace(dataset, landmarks=tuple(chosen), assumptions=assumptions)


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sort key by which numbers within names count: 'F2' before 'F10'."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))], text


def list_volumes(root: FilePath, problems: list[str]) -> dict[str, Path]:
    """Case name -> the volume of each in a data set's folder.

    Args:
      problems: a list to which what is wrong with their names is added.
    """
    return _list_by_case(Path(root) / "volumes", VOLUME_SUFFIXES, "volume", problems)


def _match_files(
    root: Path, problems: list[str], assumptions: list[str], need_volumes: bool
) -> dict[str, Case]:
    """Name -> Case of each volume, with its landmark files."""
    alone = not need_volumes and not (root / "volumes").is_dir()
    needed = ("landmarks", "landmarks") if alone else ("volumes", "volumes")
    for folder, holds in ((root, "a data set"), (root / needed[0], needed[1])):
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder with {holds}, got no such folder")
    landmarks = list_landmark_files(root / "landmarks", problems)
    volumes: dict[str, Path | None] = {}
    if alone:
        volumes = {name.rpartition(".")[0] or name: None for name in landmarks}
    else:
        volumes |= list_volumes(root, problems)
    if not volumes:
        known = ", ".join(LANDMARK_SUFFIXES if alone else VOLUME_SUFFIXES)
        raise InputError(f"{root / needed[0]}: expected files that end in {known}, got none")
    truth = list_landmark_files(root / "truth", problems)
    by_case: dict[str, dict[str, Path]] = {}
    for name in sorted(landmarks.keys() - volumes.keys(), key=natural_key):
        if case := _case_of(name, volumes):
            by_case.setdefault(case, {})[name[len(case) + 1 :]] = landmarks.pop(name)
    readings = _group_readings(by_case, assumptions)
    if beside := [name for name in readings if name in landmarks]:
        assumptions.append(
            f"{len(beside)} cases have readings by single annotators beside a landmark file of "
            "their own: that file counts, the readings only say how far annotators are apart"
        )
    if instead := [name for name in readings if name not in landmarks]:
        assumptions.append(
            f"{len(instead)} cases have readings by single annotators only: their mean counts"
        )
    for name in sorted(landmarks.keys() - volumes.keys(), key=natural_key):
        expected = f"a volume named {name} in {root / 'volumes'}"
        problems.append(f"{landmarks[name]}: expected {expected}, got none")
    for name in sorted(volumes.keys() - landmarks.keys() - readings.keys(), key=natural_key):
        expected = f"{root / 'landmarks' / name}.mrk.json or .fcsv"
        problems.append(f"{volumes[name]}: expected {expected}, got none")
    # A case without landmarks is kept until the problems are raised, so that no table is blamed
    # for naming it.
    return {
        name: Case(
            name,
            volumes[name],
            landmarks.get(name),
            subject=name,
            readings=readings.get(name, ()),
            truth_path=truth.get(name),
        )
        for name in sorted(volumes, key=natural_key)
    }


def _case_of(reading: str, cases: Collection[str]) -> str:
    """CASE of landmarks/CASE.ANNOTATOR.mrk.json, the longest if there are several; '' if none."""
    starts = [case for case in cases if reading.startswith(f"{case}.")]
    return max(starts, key=len, default="")


def _group_readings(
    by_case: Mapping[str, Mapping[str, Path]], assumptions: list[str]
) -> dict[str, tuple[Readings, ...]]:
    """Case -> its readings by annotator, of case -> what its files are called behind its name.

    NAME-2 is a repeated reading only where NAME has read a case of the data set: reader-1 and
    reader-2 alone are two people.
    """
    names = {name for files in by_case.values() for name in files}
    repeated = {
        name: match[1]
        for name in sorted(names, key=natural_key)
        if (match := re.fullmatch(r"(.+)-([2-9]|[1-9][0-9]+)", name)) and match[1] in names
    }
    if repeated:
        said = shorten([f"{name} of {annotator}" for name, annotator in repeated.items()])
        assumptions.append(f"repeated readings by the same annotator: {said}")
    grouped: dict[str, tuple[Readings, ...]] = {}
    for case, files in by_case.items():
        paths: dict[str, list[Path]] = {}
        for name, path in files.items():
            paths.setdefault(repeated.get(name, name), []).append(path)
        grouped[case] = tuple(Readings(name, tuple(each)) for name, each in paths.items())
    return grouped


def list_landmark_files(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Name -> each landmark file of a folder; none where there is no such folder.

    Args:
      problems: a list to which what is wrong with their names is added.
    """
    return _list_by_case(folder, LANDMARK_SUFFIXES, "landmark", problems)


def _list_by_case(
    folder: Path, suffixes: tuple[str, ...], kind: str, problems: list[str]
) -> dict[str, Path]:
    """Case name -> file; hidden files and other endings are passed over."""
    files: dict[str, Path] = {}
    if came := describe_link(folder):
        problems.append(f"{folder}: expected a folder of {kind} files, got {came}")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name, suffix = split_suffix(path, suffixes)
        if not suffix or path.name.startswith("."):
            continue
        if not name.isprintable() or name != name.strip():
            problems.append(
                f"{folder}: expected a name in UTF-8 without control characters or blanks round "
                f"it, got {name!r}"
            )
        if came := describe_link(path):
            problems.append(f"{path}: expected a {kind} file, got {came}")
        elif not path.is_file():
            came = "a folder" if path.is_dir() else "something that is none"
            problems.append(f"{path}: expected a {kind} file, got {came}")
            continue
        if name in files:
            both = f"{files[name].name} and {path.name}"
            problems.append(f"{folder}: expected one {kind} file for case {name}, got {both}")
        files.setdefault(name, path)
    return files


def _collect_labels(
    cases: Mapping[str, Case], coordinate_system: str | None, problems: list[str]
) -> dict[str, Path]:
    """Label -> the first file that has it, over all cases, in natural order."""
    files: dict[str, Path] = {}
    for case in cases.values():
        for path in filter(None, (case.landmarks_path, *case.reading_paths)):
            try:
                points = read_landmarks(path, coordinate_system=coordinate_system)
            except InputError as error:
                problems += error.problems
                continue
            for label in points:
                files.setdefault(label, path)
    alike: dict[str, str] = {}
    for label in files:
        other = alike.setdefault(fold_spelling(label), label)
        if other != label:
            problems.append(
                f"{files[label]}: expected each label in one spelling, got "
                f"{quote_alike([label, other])}, the other in {files[other].name}"
            )
    return {label: files[label] for label in sorted(files, key=natural_key)}
