"""Landmark files that a person may correct: what the program wrote stays known, theirs stays.

FOLDER/predicted.csv has each point as it was predicted and the digest of the file that it went
into. A file that is not as it was written is somebody's: it is not replaced, and a later step can
say what was moved. Rows are appended before their file is written; the last ones of a file count.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import mismatch, write_atomically
from fetal_jax.io.markups import format_landmarks
from fetal_jax.runs.predictions import Predictions, find_hidden

TABLE = "predicted.csv"
COLUMNS = (
    *("file", "sha256", "label", "x", "y", "z", "confidence", "chance_visible"),
    *("expected_x", "expected_y", "expected_z", "status", "radius_mm"),
)
OLDER = (COLUMNS[:-2], COLUMNS[:-1])  # of tables of before the status, the radius was kept
HIDDEN = 0.5  # below this chance a point of such a table was undefined, unless its config said else


class Written(NamedTuple):
    """A landmark file as the program wrote it: its digest, label -> [3] RAS+ mm where each point
    was found, and the labels that were written as undefined.
    """

    digest: str
    points_mm: dict[str, np.ndarray]
    undefined: frozenset[str]


def write_landmark_files(
    folder: Path,
    cases: Sequence[str],
    labels: Sequence[str],
    predictions: Predictions,
    *,
    min_visible: float,
    suffix: str = ".mrk.json",
    overwrite: bool = False,
) -> list[Path]:
    """Write FOLDER/CASE.mrk.json (or .fcsv) for each case, but those that somebody changed.

    What counts as hidden is written as undefined, and where it is expected in its description.

    Args:
      cases: N names.
      labels: L names.
      min_visible: of `find_hidden`.
      overwrite: also those that somebody changed.

    Returns:
      The files that were left as they are.

    Raises:
      InputError: a predicted.csv that is none.
    """
    paths = [folder / f"{case}{suffix}" for case in cases]
    kept = [] if overwrite else find_changed(paths)
    hidden = find_hidden(predictions.visibility, min_visible)
    points_mm = np.where(hidden[..., None], np.nan, predictions.points_mm)
    for n, path in enumerate(paths):
        if path in kept:
            continue
        points = dict(zip(labels, points_mm[n], strict=True))
        said = {label: _describe_point(predictions, hidden, n, i) for i, label in enumerate(labels)}
        content = format_landmarks(path, points, said)
        _append(folder, _list_rows(path.name, content, labels, predictions, hidden, n))
        write_atomically(path, content)
    return kept


def find_changed(paths: Sequence[Path]) -> list[Path]:
    """Files that are there, and not as the program wrote them.

    Raises:
      InputError: a predicted.csv beside them that is none.
    """
    written = {folder: read_written(folder) for folder in {path.parent for path in paths}}
    return [
        path
        for path in paths
        if os.path.lexists(path) and written[path.parent].get(path.name) != _digest_file(path)
    ]


def read_written(folder: Path) -> dict[str, str]:
    """File name -> digest, of the files that the program wrote there.

    Raises:
      InputError: a predicted.csv that is none.
    """
    return {row[0]: row[1] for row in _read_rows(folder)}


def read_predicted(folder: Path) -> dict[str, Written]:
    """File name -> what the program last wrote into it.

    Raises:
      InputError: a predicted.csv that is none, or a number in it that is none.
    """
    rows = _read_rows(folder)
    last = {row[0]: row[1] for row in rows}
    found = {name: Written(digest, {}, frozenset()) for name, digest in last.items()}
    for name, digest, label, *cells, status, _ in rows:
        if digest != last[name]:
            continue
        try:
            numbers = np.array([float(cell or "nan") for cell in cells])
        except ValueError as error:
            path = folder / TABLE
            raise InputError(f"{path}: expected numbers of {name}, got {error}") from None
        one = found[name]
        one.points_mm[label] = numbers[:3]
        if status == "undefined" or (not status and numbers[4] < HIDDEN):
            found[name] = one._replace(undefined=one.undefined | {label})
    return found


def tidy_table(folder: Path) -> None:
    """Leave each file's last rows alone in predicted.csv, in the order of the files' names."""
    blocks: dict[tuple[str, str], list[list[str]]] = {}
    for row in _read_rows(folder):
        blocks.setdefault((row[0], row[1]), []).append(row)
    last = {name: digest for name, digest in blocks}
    rows = []
    for name in sorted(last):
        each = {row[2]: row for row in blocks[name, last[name]]}  # by label: written twice alike
        rows += each.values()
    if rows:
        write_atomically(folder / TABLE, _format_rows([list(COLUMNS), *rows]))


def _list_rows(
    name: str,
    content: bytes,
    labels: Sequence[str],
    found: Predictions,
    hidden: np.ndarray,
    n: int,
) -> Iterator[list[str]]:
    digest = _digest(content)
    for i, label in enumerate(labels):
        numbers = [
            *found.points_mm[n, i],
            found.confidence[n, i],
            found.visibility[n, i],
            *found.completed_mm[n, i],
            found.radius_mm[n, i],
        ]
        *told, radius = [f"{value:.4f}" if np.isfinite(value) else "" for value in numbers]
        yield [name, digest, label, *told, "undefined" if hidden[n, i] else "defined", radius]


def _append(folder: Path, rows: Iterator[list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TABLE
    whole = _read_whole_lines(path)
    if whole and not whole.splitlines()[0].endswith(b"," + COLUMNS[-1].encode()):  # an older one
        whole = _format_rows([COLUMNS, *_read_rows(folder)])
        write_atomically(path, whole)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(len(whole))  # a line that was cut off
        file.seek(len(whole))
        file.write(_format_rows(([] if whole else [list(COLUMNS)]) + list(rows)))


def _read_rows(folder: Path) -> list[list[str]]:
    path = folder / TABLE
    rows = _parse_rows(path)
    if not rows:
        return []
    columns = tuple(rows[0])
    if columns not in (COLUMNS, *OLDER) or any(len(row) != len(columns) for row in rows):
        raise mismatch(path, "the table of what was predicted", ",".join(columns))
    return [row + [""] * (len(COLUMNS) - len(columns)) for row in rows[1:]]


def _parse_rows(path: Path) -> list[list[str]]:
    try:
        text = _read_whole_lines(path).decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected the table of what was predicted, got {error}") from None


def _read_whole_lines(path: Path) -> bytes:
    """All up to the last line's end: what was cut off is none of it."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]
    if whole or _format_rows([list(COLUMNS)]).startswith(content):
        return whole
    return content  # one line that is not ours


def _format_rows(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _digest_file(path: Path) -> str:
    """'' of what cannot be read, as a link to nothing or a folder."""
    try:
        return _digest(path.read_bytes())
    except OSError:
        return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _describe_point(predictions: Predictions, hidden: np.ndarray, n: int, i: int) -> str:
    chance = predictions.visibility[n, i]
    if hidden[n, i]:
        there = ", ".join(f"{v:.2f}" for v in predictions.completed_mm[n, i])
        return f"not visible (chance {chance:.3f}); expected at RAS {there} mm"
    said, radius = f"confidence {predictions.confidence[n, i]:.3f}", predictions.radius_mm[n, i]
    said += f", radius {radius:.1f} mm" if np.isfinite(radius) else ""
    return f"{said}, visible {chance:.3f}" if np.isfinite(chance) else said
