"""Volumes of a cohort that may be larger than memory: each is fetched when it is looked at."""

import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

DTYPES = ("float16", "uint8")  # of kept grids
SAMPLES = 8  # along each axis, of `thin_out`


def encode(voxels: np.ndarray, dtype: str) -> np.ndarray:
    """Voxels in [0, 1] as they are kept, one of DTYPES."""
    return np.rint(voxels * 255).astype(np.uint8) if dtype == "uint8" else voxels.astype(dtype)


def decode(kept: np.ndarray) -> np.ndarray:
    """Voxels in [0, 1]: what was kept as float16 as it is, bytes as float32."""
    return kept / np.float32(255) if kept.dtype == np.uint8 else kept


def decoded_dtype(dtype: str) -> np.dtype:
    """Of what `decode` makes of one of DTYPES."""
    return decode(np.zeros(0, dtype)).dtype


class Volumes:
    """[N, D, H, W], in [0, 1], as an array would be indexed along N and turned into an array.

    An index gives a volume; anything else that selects gives `Volumes`, and fetches nothing.
    """

    def __init__(
        self,
        fetch: Sequence[Callable[[], np.ndarray]],
        shape: Sequence[int],
        dtype: DTypeLike = np.float16,
        thin: np.ndarray | None = None,
    ):
        """
        Args:
          fetch: of each volume what returns it.
          shape, dtype: of each.
          thin: [N, ...], of `thin_out`, where it is known without a look at them.
        """
        self._fetch, self._thin = tuple(fetch), thin
        self.shape, self.dtype = (len(self._fetch), *shape), np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._fetch)

    def __getitem__(self, index) -> "np.ndarray | Volumes":
        if isinstance(index, int | np.integer):
            return self._fetch[index]()
        chosen = np.arange(len(self))[index]
        thin = None if self._thin is None else self._thin[chosen]
        return Volumes([self._fetch[i] for i in chosen], self.shape[1:], self.dtype, thin)

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("expected to copy: volumes lie apart from each other")
        found, first = np.empty(self.shape, dtype or self.dtype), {}
        for i, fetch in enumerate(self._fetch):
            same = first.setdefault(id(fetch), i)  # as in a batch that is filled with copies
            found[i] = fetch() if same == i else found[same]
        return found

    def astype(self, dtype: DTypeLike) -> "Volumes":
        """The same as another type, each when it is fetched."""
        fetch = [partial(_fetch_as, one, np.dtype(dtype)) for one in self._fetch]
        return Volumes(fetch, self.shape[1:], dtype)

    def thin_out(self) -> np.ndarray:
        """`thin_out` of each, [N, ...]."""
        if self._thin is not None:
            return self._thin
        return np.stack([thin_out(fetch()) for fetch in self._fetch])


def _fetch_as(fetch: Callable[[], np.ndarray], dtype: np.dtype) -> np.ndarray:
    return fetch().astype(dtype, copy=False)


def thin_out(volume: np.ndarray) -> np.ndarray:
    """Every so many-th voxel along each axis of [D, H, W], SAMPLES or up to twice as many."""
    step = max(1, volume.shape[0] // SAMPLES)
    return volume[::step, ::step, ::step]


def list_volumes(volumes: "np.ndarray | Volumes") -> Volumes:
    """An array [N, D, H, W] as `Volumes`."""
    if isinstance(volumes, Volumes):
        return volumes
    volumes = np.asarray(volumes)
    fetch = [partial(volumes.__getitem__, i) for i in range(len(volumes))]
    return Volumes(fetch, volumes.shape[1:], volumes.dtype)


def join_volumes(parts: Sequence["np.ndarray | Volumes"]) -> "np.ndarray | Volumes":
    """One behind the other; an array if all are."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    every = [list_volumes(part) for part in parts]
    fetch = [fetch for part in every for fetch in part._fetch]
    return Volumes(fetch, every[0].shape[1:], every[0].dtype)


def write_scratch(
    volumes: Iterable[np.ndarray], count: int, folder: Path | None
) -> "np.ndarray | Volumes":
    """[N, D, H, W], mapped: in a file without a name, which goes with the last look at it.

    Args:
      volumes: `count` of them, of one shape and type; one at a time is in memory.
      folder: on whose disk; None, or where there is no room: all stay in memory.
    """
    volumes = iter(volumes)
    first = next(volumes)
    file = _open_scratch(folder, count * first.nbytes)
    if file is None:
        return np.stack([first, *volumes])
    with file:
        for volume in chain([first], volumes):
            file.write(np.ascontiguousarray(volume))
        file.flush()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return list_volumes(np.ndarray((count, *first.shape), first.dtype, content))


def _open_scratch(folder: Path | None, length: int) -> BinaryIO | None:
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free > length:
            return tempfile.TemporaryFile(dir=folder)
        why = "a full disk"
    except OSError as error:
        why = error.strerror
    print(f"warning: {folder}: {length / 2**30:.2g} GiB of grids stay in memory ({why})")
    return None
