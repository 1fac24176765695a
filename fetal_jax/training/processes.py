"""Several processes that run one program, each on devices of its own.

Each loads its share of a batch, and only the first reads and writes the run's folder.
"""

import os
import pickle
import sys
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fetal_jax.errors import InputError

Made = TypeVar("Made")


def start_processes(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join the other processes; call it before JAX starts a device. Only the first prints.

    With no arguments Slurm, Open MPI or the TPU's own environment says who is there.

    Args:
      coordinator: host:port of the first process.
      processes, process: how many there are, and which this is.
    """
    if coordinator:
        jax.distributed.initialize(coordinator, processes, process)
    else:
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                "--distributed: expected Slurm, Open MPI or a TPU slice, or --coordinator, "
                f"--processes and --process, got {error}"
            ) from None
    if not is_first():
        sys.stdout = open(os.devnull, "w")


def is_first() -> bool:
    """Whether this process is the one that reads and writes the run's folder."""
    return jax.process_index() == 0


def from_first(make: Callable[[], Made]) -> Made:
    """What `make()` returns in the first process, in every process; arrays come as numpy's.

    With one process it is just `make()`. An InputError there is raised everywhere.
    """
    if jax.process_count() == 1:
        return make()
    content = b""
    if is_first():
        try:
            content = pickle.dumps((jax.device_get(make()), None))
        except InputError as error:
            content = pickle.dumps((None, error.problems))
    size = int(multihost_utils.broadcast_one_to_all(np.int64(len(content))))
    filled = np.frombuffer(content.ljust(size, b"\0"), np.uint8)
    result, problems = pickle.loads(bytes(multihost_utils.broadcast_one_to_all(filled)))
    if problems:
        raise InputError(*problems)
    return result


def local_share(batch: int) -> slice:
    """The part of a global batch that this process loads."""
    each = batch // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def localise(tree: Made) -> Made:
    """Arrays that are the same everywhere, as this process can use and save them."""
    return tree if jax.process_count() == 1 else jax.device_get(tree)
