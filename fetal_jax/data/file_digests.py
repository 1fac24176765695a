"""What a case's files hold, as digests, so that a run knows its data by content and not by name.

A file is read for its digest once; it is then known by its path, size and time of change.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fetal_jax.data.case_table import Case
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.volumes import find_voxel_file

REMEMBERED = "file-digests.json"
KINDS = ("volume", "landmarks")
YOUNG_NS = 2 * 10**9

Digests = dict[str, dict[str, str]]  # case -> kind -> digest


def digest_cases(cases: Sequence[Case], cache: Path | None) -> Digests:
    """Of each case a digest of its volume, and of all that says where its landmarks are and seen.

    Args:
      cache: a folder in which digests are remembered for later starts; None: in memory alone.

    Raises:
      InputError: a file that cannot be read.
    """
    volumes = [[case.volume_path, *find_voxel_file(case.volume_path)] for case in cases]
    landmarks = [
        [path for path in (case.landmarks_path, *case.reading_paths, case.truth_path) if path]
        for case in cases
    ]
    known = _digest_files([path for paths in (*volumes, *landmarks) for path in paths], cache)

    def join(paths: Sequence[Path], *also: object) -> str:
        return hashlib.sha256(repr([*(known[path] for path in paths), *also]).encode()).hexdigest()

    return {
        case.name: {
            "volume": join(of_volume),
            "landmarks": join(
                marks, case.visible if case.visible is None else sorted(case.visible)
            ),
        }
        for case, of_volume, marks in zip(cases, volumes, landmarks, strict=True)
    }


def find_changes(before: Digests, now: Digests) -> list[str]:
    """'volume of c3', ...: what is another one, of the cases that both have."""
    return [
        f"{kind} of {case}"
        for case, digests in before.items()
        for kind in KINDS
        if case in now and digests.get(kind) != now[case][kind]
    ]


def digest_file(path: Path, cache: Path | None) -> str:
    """Digest of a file's bytes; it is not read again while its size and time are what they were.

    Args:
      cache: of `digest_cases`, which remembers for later starts.

    Raises:
      OSError: it cannot be read.
    """
    _recall(cache)
    stat = path.stat()
    name, now = str(path.absolute()), [stat.st_size, stat.st_mtime_ns]
    seen = _seen.get(name)
    if seen and seen[:2] == now:
        return seen[2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # where times are coarse, a file that is still young can change once more and keep its time
    if time.time_ns() - stat.st_mtime_ns > YOUNG_NS:
        _seen[name] = [*now, digest]
    return digest


# absolute path -> size, time of change, digest: of the files read by this process, and before
_seen: dict[str, list] = {}


@cache
def _recall(folder: Path | None) -> None:
    for name, seen in _read_remembered(folder).items():
        _seen.setdefault(name, seen)


def _digest_files(paths: Sequence[Path], cache: Path | None) -> dict[Path, str]:
    def digest(path: Path) -> str:
        try:
            return digest_file(path, cache)
        except OSError as error:
            raise InputError(f"{path}: expected a readable file, got {error.strerror}") from None

    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(digest, paths), strict=True))
    _remember([str(path.absolute()) for path in paths], cache)
    return found


def _remember(names: Sequence[str], folder: Path | None) -> None:
    kept = _read_remembered(folder)  # again: another run may have learned something meanwhile
    new = {name: _seen[name] for name in names if name in _seen and _seen[name] != kept.get(name)}
    if folder and new:
        try:
            write_atomically(folder / REMEMBERED, json.dumps(kept | new).encode())
        except OSError:
            pass  # a full disk or a folder that is not ours: only slower the next time


def _read_remembered(folder: Path | None) -> dict[str, list]:
    try:
        content = json.loads((folder / REMEMBERED).read_bytes()) if folder else {}
        return {k: v for k, v in content.items() if len(v) == 3 and isinstance(v[2], str)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
