"""How many volumes are read at once: as many as fit into a bound of memory."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
