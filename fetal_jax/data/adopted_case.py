"""Where a new case's files go in a data set; nothing that is there is overwritten."""

import csv
import filecmp
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fetal_jax.data.dataset import list_landmark_files
from fetal_jax.errors import InputError
from fetal_jax.io.files import LANDMARK_SUFFIXES, VOLUME_SUFFIXES, split_suffix, write_atomically
from fetal_jax.io.tables import read_table
from fetal_jax.io.volumes import find_voxel_file


class NewCase(NamedTuple):
    """A case to be taken into a data set: source -> target of each file.

    is_there: its landmarks are there already, with the same bytes.
    """

    name: str
    volume: dict[Path, Path]
    landmarks: tuple[Path, Path]
    is_there: bool


def plan_case(
    root: Path,
    name: str,
    volume: Path,
    landmarks: Path,
    annotator: str,
    volumes: Mapping[str, Path],
) -> NewCase:
    """Where the files of a case go.

    Args:
      root: of the data set, which need not be there.
      annotator: whose reading it is; '': the case's own landmark file.
      volumes: case -> volume, of the data set.

    Raises:
      InputError: what is there is another one, or the scan is there under another name.
    """
    reading = f"{name}.{annotator}" if annotator else name
    target = root / "landmarks" / f"{reading}{split_suffix(landmarks, LANDMARK_SUFFIXES)[1]}"
    there = list_landmark_files(root / "landmarks", []).get(reading)
    if there and not (there.name == target.name and _is_same(there, landmarks)):
        raise InputError(
            f"{landmarks}: expected no landmarks of {reading} in the data set yet, got {there}: "
            "they stay, and it is left out; --annotator=NAME takes it as NAME's reading"
        )
    parts = _list_parts(volume)
    targets = [root / "volumes" / f"{name}{split_suffix(volume, VOLUME_SUFFIXES)[1]}"]
    for part in parts[1:]:  # a header names its voxels' file from its own folder
        if not part.is_relative_to(volume.parent):
            raise InputError(f"{volume}: expected its voxels beside it, got {part}")
        targets.append(root / "volumes" / part.relative_to(volume.parent))
    before = volumes.get(name)
    if before is not None and _is_same(before, volume):
        targets[0] = before
    elif before is not None:
        raise InputError(f"{volume}: expected no other volume of {name}, got {before}")
    for part, at in zip(parts, targets, strict=True):
        if at.exists() and not _is_same(part, at):
            raise InputError(f"{volume}: expected its own file or none as {at}, got another file")
    for other, path in volumes.items():
        if other != name and _is_same(_list_parts(path)[-1], parts[-1]):
            raise InputError(
                f"{volume}: expected a scan that the data set does not have, got that of {other}"
            )
    return NewCase(name, dict(zip(parts, targets, strict=True)), (landmarks, target), bool(there))


def _list_parts(volume: Path) -> list[Path]:
    """The file, and of a header the one with its voxels."""
    return [volume, *(part for part in find_voxel_file(volume) if part != volume)]


def _is_same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, shallow=False)


def append_cases(table: Path, names: Sequence[str]) -> list[str]:
    """Append a row of each case that cases.csv lacks; what stands there stays byte for byte.

    Its subject is the case itself, its split train, where the table has these columns.

    Returns:
      The cases that were added; none where there is no table.

    Raises:
      InputError: a table that cannot be read.
    """
    if not table.exists():
        return []
    columns, rows = read_table(table, required=("case",))
    listed = {row["case"] for _, row in rows}
    new = [name for name in names if name not in listed]
    if not new:
        return []
    content = table.read_bytes()
    end = "\r\n" if b"\r\n" in content else "\n" if b"\n" in content else "\r"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    for name in new:
        known = {"case": name, "subject": name, "split": "train"}
        writer.writerow([known.get(column, "") for column in columns])
    whole = content if content.endswith((b"\n", b"\r")) else content + end.encode()
    write_atomically(table, whole + text.getvalue().encode())
    return new
