"""Named arrays in one file, as .npz."""

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically

# what numpy and zipfile raise on damaged archives; of another compression, a RuntimeError's kind
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, lzma.LZMAError),
)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Whole, or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, what: str) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote.

    Args:
      what: what the file should be, for the error.

    Raises:
      InputError: no such file, or no arrays.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:  # numpy leaves a bad file open
            return dict(file)
    except UNREADABLE as error:
        raise InputError(f"{path}: expected {what}, got {error}") from None
