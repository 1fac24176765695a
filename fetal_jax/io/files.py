"""Names of files, the error for a bad one, and writing a file whole or not at all."""

import hashlib
import os
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fetal_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FilePath = str | os.PathLike[str]
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LANDMARK_SUFFIXES = (".mrk.json", ".fcsv")


def split_suffix(path: FilePath, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Split a file's name into (stem, suffix in lower case); the suffix is '' if it is not listed.

    Only the listed endings are split off, so that a case may have dots in its name. The stem is in
    Unicode's composed form: some systems store é as two code points.
    """
    name = compose(Path(path).name)
    for suffix in suffixes:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def compose(text: str) -> str:
    """Text in which é is one code point, however it was typed (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text)


def describe_link(path: FilePath) -> str:
    """What a link to nothing is, in words, as git-annex leaves it; '' of anything else."""
    path = Path(path)
    if not path.is_symlink() or path.exists():
        return ""
    return f"a link to nothing, {os.readlink(path)} (annex and datalad: get it first)"


def write_atomically(path: FilePath, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place; missing folders are made.

    An interrupted write leaves the old file (or none), never a part of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        temporary, file = _open_temporary(path)
        with file:
            file.write(data)
            file.flush()
            if fcntl is None:
                file.close()  # Windows moves no open file
            os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None  # not the other name


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """An empty file beside `path` that is this writer's until it is closed.

    It is named after `path`, so that what a killed process left is used up when the same file is
    written again; where another writer has it, or no file can be locked, after this process.
    """
    # a name of its own length: a long one has no room for more
    name = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    shared = path.with_name(f".{name}.tmp")
    if fcntl is not None:
        with suppress(OSError):
            file = shared.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # else whoever had it has just put it into place
                if os.fstat(file.fileno()).st_ino == shared.stat().st_ino:
                    file.truncate(0)
                    return shared, file
                file.close()
            except OSError:
                file.close()
                raise
    own = path.with_name(f".{os.getpid()}.{threading.get_ident()}.tmp")
    return own, own.open("wb")


def mismatch(path: FilePath, expected: str, came: str) -> InputError:
    """The error for one file, on one line: what came is cut to 200 characters."""
    return InputError(f"{path}: expected {expected}, got {' '.join(came.split())[:200]}")
