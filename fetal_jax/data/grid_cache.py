"""Prepared grids kept on disk, so that a second run begins at once. Any of them can be deleted.

A grid is filed under what made it: the volume file's bytes, the preprocessing, and this program's
own code for it. Files are written whole, so several runs may share the folder.
"""

import hashlib
import io
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import scipy

from fetal_jax.data.file_digests import digest_file
from fetal_jax.io.arrays import UNREADABLE
from fetal_jax.io.files import write_atomically
from fetal_jax.io.volumes import find_voxel_file

# numpy reads an array's header with `ast`, which in Python 3.11 may fail in two threads at once
# (python/cpython issue 106905)
_READING = threading.Lock()


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


def fetch(
    folder: Path | None, path: Path, made_by: object, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays that `make` makes of a volume file, from the folder if they are there, else into it.

    Args:
      folder: None keeps nothing.
      made_by: all that decides what `make` makes, beside the file.
    """
    if folder is None:
        return make()
    try:
        kept = folder / f"{make_key(folder, path, made_by)}.npz"
    except OSError:
        return make()  # which says what is wrong with the file
    try:
        with _READING, kept.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except UNREADABLE:
        pass  # not there, or not whole
    arrays = make()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        write_atomically(kept, buffer.getvalue())
    except OSError:
        pass  # a full disk or a folder that is not ours: only slower the next time
    return arrays
