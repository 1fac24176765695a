"""Prepared grids kept on disk and mapped into memory. Any of them can be deleted at any time.

A grid is filed under what made it: the volume file's bytes, the preprocessing, and this program's
own code for it. Files are written whole, so several runs may share the folder. One that is gone,
cut or damaged is made again where it is asked for.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy

from fetal_jax.data.file_digests import digest_file
from fetal_jax.errors import InputError
from fetal_jax.io.files import mismatch
from fetal_jax.io.mapped_arrays import is_mapped, map_arrays, write_mappable
from fetal_jax.io.volumes import find_voxel_file

Arrays = dict[str, np.ndarray]

# files whose arrays were compared with their checksums by this process: path, inode, size, time
_checked: set[tuple] = set()


def make_key(folder: Path, path: Path, *made_by: object) -> str:
    """Name, in the folder, of what `made_by` makes of the file at `path`."""
    files = [path, *find_voxel_file(path)]
    digest = hashlib.blake2b(
        "".join(digest_file(one, folder) for one in files).encode(), digest_size=16
    )
    digest.update(repr((made_by, scipy.__version__)).encode())
    digest.update(_hash_sources())
    return digest.hexdigest()


@cache
def _hash_sources() -> bytes:
    package = Path(__file__).parents[1]
    names = ["data/preprocess.py", "geometry.py"]
    names += [f"io/{name}.py" for name in ("volumes", "text_header", "nrrd", "meta_image")]
    return hashlib.blake2b(b"".join((package / name).read_bytes() for name in names)).digest()


@dataclass(frozen=True)
class Kept:
    """Arrays that a volume file was made into, opened when they are asked for.

    source: the volume file.
    make: makes them again; name: says under which name they would then be kept.
    small: those of them that were asked for at once, in memory.
    file: where they are kept; None where nothing could be kept, and `held` has them.
    """

    source: Path
    make: Callable[[], Arrays]
    name: Callable[[], Path]
    small: Arrays
    file: Path | None = None
    held: Arrays | None = None

    def open(self) -> Arrays:
        """The arrays, mapped; a file is checked when this process first opens it.

        Raises:
          InputError: they are gone or damaged, and the volume file is no longer what it was.
        """
        if self.held is not None:
            return self.held
        try:
            return _map_checked(self.file)
        except (OSError, ValueError):
            pass
        try:
            if self.name() != self.file:
                raise mismatch(self.source, "the file that this run began with", "another one")
        except OSError as error:
            raise InputError(f"{self.source}: expected a volume, got {error.strerror}") from None
        return _write(self.file, self.make())


def keep(
    folder: Path | None,
    path: Path,
    made_by: object,
    make: Callable[[], Arrays],
    *,
    small: Collection[str] = (),
) -> Kept:
    """See that what `make` makes of a volume file is in the folder, of which no more than its
    header is read if it is.

    Args:
      folder: None keeps nothing.
      made_by: all that decides what `make` makes, beside the file.
      small: names of arrays that are read even so.
    """

    def name() -> Path:
        return folder / f"{make_key(folder, path, made_by)}.grid"

    try:
        file = None if folder is None else name()
    except OSError:
        file = None  # `make` says what is wrong with the volume file
    try:
        arrays = make() if file is None else map_arrays(file, check=small)
    except (OSError, ValueError):  # not there, or not whole
        arrays = _write(file, make())
    mapped = all(map(is_mapped, arrays.values()))
    return Kept(
        path,
        make,
        name,
        {one: np.array(arrays[one]) for one in small},
        file if mapped else None,
        None if mapped else arrays,
    )


def fetch(folder: Path | None, path: Path, made_by: object, make: Callable[[], Arrays]) -> Arrays:
    """Arrays that `make` makes of a volume file, mapped from the folder; arguments of `keep`."""
    return keep(folder, path, made_by, make).open()


def _map_checked(file: Path) -> Arrays:
    stat = file.stat()
    seen = (file, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    arrays = map_arrays(file)
    if seen not in _checked:
        arrays = map_arrays(file, check=arrays.keys())
        _checked.add(seen)
    return arrays


def _write(file: Path, arrays: Arrays) -> Arrays:
    """The arrays, from the file if it can be written; else they stay in memory."""
    try:
        write_mappable(file, arrays)
        return map_arrays(file)
    except OSError as error:  # a full disk or a folder that is not ours
        _warn(file.parent, error.strerror)
        return arrays


@cache
def _warn(folder: Path, why: str) -> None:
    print(f"warning: {folder}: grids cannot be kept ({why}); they stay in memory")
