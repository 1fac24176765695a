"""How many volumes are read at once: as many as fit into a bound of memory."""

import ctypes
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# What one voxel takes while its file is unpacked, put in order and sampled: twice its own eight
# bytes at the most.
VOXEL_BYTES = 16
READING_BYTES = 4 * 2**30

_changed = threading.Condition()
_reserved = 0


@contextmanager
def reserve(shape: Sequence[int]) -> Iterator[None]:
    """Wait until a volume of that shape fits beside those that other threads read, then hold its
    memory; one that is larger than the bound is read alone.
    """
    global _reserved
    wanted = VOXEL_BYTES * math.prod(shape)
    with _changed:
        _changed.wait_for(lambda: not _reserved or _reserved + wanted <= READING_BYTES)
        _reserved += wanted
    try:
        yield
    finally:
        with _changed:
            _reserved -= wanted
            _changed.notify_all()


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_free() -> float:
    """Bytes of memory that are free, as far as the system says it, or infinity."""
    try:
        content = Path("/proc/meminfo").read_text()
        return 1024 * int(content.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return math.inf


def give_back() -> None:
    """Return freed memory to the system, which `training.devices.reuse_memory` would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)
