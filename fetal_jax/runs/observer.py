"""The program as one more observer: what it found in cases that it has not learned from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import list_landmark_files
from fetal_jax.data.file_digests import digest_cases
from fetal_jax.data.observers import read_points
from fetal_jax.errors import InputError
from fetal_jax.io.tables import shorten
from fetal_jax.runs import finished, folder
from fetal_jax.runs.found_files import TABLE, find_changed


class Found(NamedTuple):
    """One more observer of N cases.

    points_mm: [N, L, 3] RAS+ mm, NaN where it left a point out or did not look.
    read: [N] bool, whether it looked at the case. notes: sentences on which cases these are.
    """

    points_mm: np.ndarray
    read: np.ndarray
    notes: list[str]


def read_found(
    cases: Sequence[Case],
    labels: Sequence[str],
    *,
    workdir: Path | None,
    files: Path | None,
    cache: Path | None = None,
) -> Found:
    """Read what a run found, in its own test cases or as landmark files of new scans.

    Args:
      cases: N of them, that observers have read; labels: L names.
      workdir: a finished run or cross-validation. What it trained or was chosen on is left out.
      files: a folder of landmark files CASE.mrk.json or .fcsv, as --mode=predict writes them; None:
        those of the run's test cases.
      cache: of `digest_cases`.

    Raises:
      InputError: neither is given, a file is not as the program wrote it, or no case is left.
    """
    if files is not None:
        found, learned = _list_files(files), _find_learned(cases, workdir, cache)
    elif workdir is not None:
        found, learned = _list_tested(cases, workdir, cache), set()
    else:
        raise ValueError("expected a run or a folder of landmark files, got neither")
    where = files or workdir
    found = {n: found[case.name] for n, case in enumerate(cases) if case.name in found}
    left = [cases[n].name for n in found if cases[n].name in learned]
    chosen = {n: path for n, path in found.items() if cases[n].name not in learned}
    if not chosen:
        came = f"none but of those that {workdir} learned from" if left else "none"
        raise InputError(f"{where}: expected landmark files of cases with readings, got {came}")
    _refuse_changed(list(chosen.values()))
    points_mm, read = np.full((len(cases), len(labels), 3), np.nan), np.zeros(len(cases), bool)
    for n, path in chosen.items():
        points_mm[n], read[n] = read_points(path, labels), True
    notes = [f"The program's points of {len(chosen)} cases are those of {where}."]
    if left:
        notes.append(f"{workdir} learned from {len(left)} others, left out: {shorten(left)}.")
    if workdir is None:
        notes.append(
            "Whether it was trained on these cases is not known here: if it was, it looks better "
            "than it is. With --workdir=RUN as well, what that run learned from is left out."
        )
    return Found(points_mm, read, notes)


def _list_files(files: Path) -> dict[str, Path]:
    if not files.is_dir():
        raise InputError(f"{files}: expected a folder of landmark files, got no such folder")
    problems: list[str] = []
    found = list_landmark_files(files, problems)
    if problems:
        raise InputError(*problems)
    return found


def _list_tested(cases: Sequence[Case], workdir: Path, cache: Path | None) -> dict[str, Path]:
    """The landmark files of the test cases of a run, or of a cross-validation's folds."""
    if not (workdir / "results.json").exists():
        raise InputError(f"{workdir}: expected a finished run, with results.json, got none")
    digests, found = _digest_volumes(cases, cache), {}
    for run in finished.find_runs(workdir):
        record = folder.read_data_record(run)
        known = record.digests or {}
        for name, path in _list_files(run / "predictions").items():
            if name not in record.splits["test"]:
                continue
            if name in digests and digests[name] != known.get(name, {}).get("volume"):
                raise InputError(f"{path}: expected the scan of this data set, got another's")
            found[name] = path
    return found


def _find_learned(cases: Sequence[Case], workdir: Path | None, cache: Path | None) -> set[str]:
    """Names of the cases that a run, or any fold, learned from, be it under another name."""
    names, volumes = set(), set()
    for run in finished.find_runs(workdir) if workdir else ():
        record = folder.read_data_record(run)
        mine = {*record.splits["train"], *record.splits["validation"]}
        names |= mine
        volumes |= {one["volume"] for name, one in (record.digests or {}).items() if name in mine}
    return names | {name for name, one in _digest_volumes(cases, cache).items() if one in volumes}


def _digest_volumes(cases: Sequence[Case], cache: Path | None) -> dict[str, str]:
    """Case -> digest of its volume, of those that have one."""
    with_volume = [case for case in cases if case.volume_path is not None]
    return {name: one["volume"] for name, one in digest_cases(with_volume, cache).items()}


def _refuse_changed(paths: Sequence[Path]) -> None:
    """A file that a person corrected is no longer the program's reading."""
    ours = [path for path in paths if (path.parent / TABLE).exists()]
    if changed := find_changed(ours):
        raise InputError(
            *(f"{p}: expected the file as {TABLE} beside it knows it, got another" for p in changed)
        )
