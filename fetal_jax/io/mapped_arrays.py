"""Named arrays in one file that is mapped into memory: what nobody looks at is not read.

MAGIC; the length and the checksum of the header; the header, in JSON: the length of the file and of
each array its type, shape, axes' order, first byte and checksum; the arrays.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from fetal_jax.io.files import write_atomically

MAGIC = b"mapped arrays 1\n"
ALIGNMENT = 64
_HEADER = struct.Struct("<II")
_START = len(MAGIC) + _HEADER.size


def write_mappable(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Whole, or not at all."""
    contents, described, place = [], {}, 0
    for name, array in arrays.items():
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        content = np.asarray(array, order=order).ravel(order).view(np.uint8)
        described[name] = [array.dtype.str, array.shape, order, place, zlib.crc32(content)]
        contents += [content, b"\0" * (-len(content) % ALIGNMENT)]
        place += len(content) + len(contents[-1])
    header = json.dumps({"length": place, "arrays": described}).encode()
    header += b" " * (-(_START + len(header)) % ALIGNMENT)
    start = MAGIC + _HEADER.pack(len(header), zlib.crc32(header)) + header
    write_atomically(path, b"".join([start, *contents]))


def map_arrays(path: Path, *, check: Collection[str] = ()) -> dict[str, np.ndarray]:
    """What `write_mappable` wrote, read-only; the file stays open as long as one of them is used.

    Args:
      check: names of arrays that are read and compared with their checksums.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no such file, is not whole, or an array of `check` is damaged.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start, header = _read_header(path, content)
    if len(content) != start + header["length"]:
        raise ValueError(f"{path}: expected {start + header['length']} bytes, got {len(content)}")
    arrays = {}
    for name, (kind, shape, order, place, checksum) in header["arrays"].items():
        array = np.ndarray(shape, kind, content, start + place, order=order)
        if name in check:
            stored = np.ndarray(array.nbytes, np.uint8, content, start + place)
            if zlib.crc32(stored) != checksum:
                raise ValueError(f"{path}: {name} is damaged")
        arrays[name] = array
    return arrays


def _read_header(path: Path, content: mmap.mmap) -> tuple[int, dict]:
    """The first byte behind the header, and the header."""
    if len(content) < _START or content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path}: no mapped arrays")
    length, checksum = _HEADER.unpack(content[len(MAGIC) : _START])
    header = content[_START : _START + length]
    if zlib.crc32(header) != checksum:
        raise ValueError(f"{path}: the header is damaged")
    return _START + length, json.loads(header)


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is one of `map_arrays`: it holds no memory of its own."""
    return isinstance(array.base, mmap.mmap)
