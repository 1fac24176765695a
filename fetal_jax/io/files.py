"""Names of files, the line for one that is wrong, and writing one whole or not at all."""

import os
import threading
from pathlib import Path

from fetal_jax.errors import InputError

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LANDMARK_SUFFIXES = (".mrk.json", ".fcsv")


def split_suffix(path, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Part a file's name into (stem, suffix in lower case); the suffix is '' if it is not listed.

    Only the listed endings are cut off, so that a case may have dots in its name.
    """
    name = Path(path).name
    for suffix in suffixes:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def write_atomically(path, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place; folders are made where they are missing.

    An interrupted write leaves the old file (or none), never a part of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def mismatch(path, expected: str, came: str) -> InputError:
    """The error for one file: one line, however much the file holds where a word should stand."""
    return InputError(f"{path}: expected {expected}, got {' '.join(came.split())[:200]}")
