"""What NRRD and MetaImage share: a header of text lines, and plain or packed voxels behind it.

Read strictly. Programs that read these formats assume what a header does not say, do not look at
the checksum of packed voxels, and end with the process on some damaged headers.
"""

import bz2
import gzip
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.files import describe_link, mismatch

HEADER_BYTES = 2**24  # notes of a whole DICOM header are among them
CHUNK = 2**20
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)

Fields = dict[str, str]  # keys in lower case, values stripped


class Stored(NamedTuple):
    """How voxels lie in a file.

    start: bytes before them; None: they are the last of the file.
    packing: '', 'gzip', 'zlib', 'bzip2', or 'text' for numbers with spaces between.
    shape: first axis fastest.
    skipped: bytes of what is unpacked that are none of the voxels.
    packed_bytes: how many there are, where the header says so.
    """

    path: Path
    start: int | None
    packing: str
    dtype: np.dtype
    shape: tuple[int, ...]
    packed_bytes: int | None = None
    skipped: int = 0


def read_lines(path: Path, last: str) -> tuple[list[str], int]:
    """The header's lines, and how many bytes they take.

    Args:
      last: which line is the header's last, as a regular expression.

    Raises:
      InputError: a header that does not end.
    """
    lines, start = [], 0
    try:
        with path.open("rb") as file:
            while start < HEADER_BYTES and (line := file.readline(HEADER_BYTES)):
                start += len(line)
                lines.append(_decode(line.rstrip(b"\r\n")))
                if re.match(last, lines[-1]):
                    break
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    return lines, start


def _decode(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def add_field(path: Path, fields: Fields, key: str, value: str) -> None:
    """Raises InputError for a field that is there twice."""
    key, value = " ".join(key.split()).lower(), value.strip()
    if key in fields:
        raise mismatch(path, f"one {key}", f"{fields[key]} and {value}")
    fields[key] = value


def parse_numbers(path: Path, key: str, text: str, count: int) -> list[float]:
    """`count` finite numbers with spaces between, nothing else.

    Raises:
      InputError: anything else.
    """
    words = text.split()
    good = len(words) == count and all(map(_NUMBER.fullmatch, words))
    if not good or not all(math.isfinite(float(word)) for word in words):
        expected = "a number" if count == 1 else f"{count} numbers"
        raise mismatch(path, f"{expected} as {key}", text or "none")
    return [float(word) for word in words]


def parse_sizes(path: Path, key: str, text: str, count: int) -> tuple[int, ...]:
    """`count` whole numbers.

    Raises:
      InputError: anything else.
    """
    words = text.split()
    if len(words) != count or not all(re.fullmatch(r"\d{1,9}", w, re.ASCII) for w in words):
        expected = "a whole number" if count == 1 else f"{count} whole numbers"
        raise mismatch(path, f"{expected} as {key}", text or "none")
    return tuple(map(int, words))


def name_voxel_file(path: Path, where: str) -> Path:
    """The file beside a header that has its voxels.

    Raises:
      InputError: several files, or none.
    """
    beside = path.parent / where
    try:
        there, came = beside.is_file(), describe_link(beside) or "no such file"
    except (OSError, ValueError):  # a name that none can have
        there, came = False, "no such file"
    if not there and (re.match(r"LIST\b", where, re.IGNORECASE) or re.search(r"%\d*d", where)):
        raise mismatch(path, "its voxels in one file", where)
    if not there:
        raise mismatch(path, f"its voxels in {where[:80]}", came)
    return beside


def load_voxels(path: Path, stored: Stored) -> np.ndarray:
    """The voxels [I, J, K, ...], with every byte of a file accounted for.

    Args:
      path: of the header, named in errors.

    Raises:
      InputError: packed voxels that are damaged; more or fewer than the header says.
    """
    count = math.prod(stored.shape)
    wanted = count * stored.dtype.itemsize
    try:
        with stored.path.open("rb") as file:
            size = file.seek(0, 2)
            start = size - wanted if stored.start is None else stored.start
            if start < 0:
                raise EOFError(f"{size} bytes for {wanted}")
            file.seek(start)
            if stored.packed_bytes not in (None, size - start):
                raise EOFError(f"{size - start} packed bytes for {stored.packed_bytes}")
            if stored.packing == "text":
                return _parse_text(file.read(), stored.dtype, count).reshape(
                    stored.shape, order="F"
                )
            data = _unpack(file, stored.packing, stored.skipped + wanted)[stored.skipped :]
    except (OSError, EOFError, ValueError, zlib.error, MemoryError) as error:
        raise unreadable(path, str(error) or type(error).__name__) from None
    if len(data) != wanted:
        came = "more" if len(data) > wanted else f"{len(data)}"
        raise unreadable(path, f"{came} bytes of voxels for {wanted}")
    return np.frombuffer(data, stored.dtype).reshape(stored.shape, order="F")


def _parse_text(text: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    words = text.split()
    if len(words) != count or b"_" in text:
        raise EOFError(f"{len(words)} numbers for {count}")
    values = np.array(words).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("numbers that are not finite")
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if ((values < limits.min) | (values > limits.max) | (values != np.rint(values))).any():
            raise ValueError(f"numbers that are no {dtype.name}")
    return values.astype(dtype)


def _unpack(file: BinaryIO, packing: str, wanted: int) -> bytes:
    """The `wanted` bytes, one more if there are more, and the checksum looked at."""
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file).read(wanted + 1)
    if not packing:
        return file.read(wanted + 1)
    unpacker = {"zlib": zlib.decompressobj, "bzip2": bz2.BZ2Decompressor}[packing]()
    data, rest = bytearray(), b""
    while not unpacker.eof and len(data) <= wanted:
        if not rest and getattr(unpacker, "needs_input", True):  # bz2 keeps what it has not used
            rest = file.read(CHUNK)
            if not rest:
                break
        data += unpacker.decompress(rest, wanted + 1 - len(data))
        rest = getattr(unpacker, "unconsumed_tail", b"")  # as zlib has it
    if len(data) <= wanted and not unpacker.eof:
        raise EOFError("packed voxels end too soon")
    if unpacker.unused_data or file.read(1):
        raise EOFError("bytes behind the packed voxels")
    return bytes(data)


def check_unpacked(path: Path, stored: Stored) -> None:
    """Raise InputError where plain voxels do not take what the header says, without reading them.

    Of packed ones no more can come than a thousand times what is there.
    """
    size = stored.path.stat().st_size - (stored.start or 0)
    wanted = math.prod(stored.shape) * stored.dtype.itemsize
    # a byte of deflate gives at most 1032 (zlib.net/zlib_tech.html), of bzip2 some 45,000
    most = {"": 1, "text": stored.dtype.itemsize, "bzip2": 50_000}.get(stored.packing, 1032)
    if wanted > most * size or (not stored.packing and stored.start is not None and wanted < size):
        raise unreadable(path, f"{size} bytes of voxels for {wanted}")


def unreadable(path: Path, came: str) -> InputError:
    return InputError(f"{path}: expected a whole image, got one that cannot be read ({came})")


def build_affine(
    axes: Sequence[Sequence[float]], origin: Sequence[float], signs: Sequence[float]
) -> np.ndarray:
    """[4, 4], voxel -> RAS+ mm.

    Args:
      axes: [3][3], of each array axis the step in mm.
      signs: of R, A, S in the file's own directions.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.array(axes).T * np.array(signs)[:, None]
    affine[:3, 3] = np.array(origin) * signs + 0.0  # -0.0 becomes 0.0
    return affine
