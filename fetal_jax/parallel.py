"""Devices: the only module that knows how many there are."""

import glob
import shutil
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fetal_jax.errors import InputError

AXIS = "devices"


def psum(tree):
    """Sum over the devices, inside a function that `map_step` or `map_batches` maps."""
    return jax.lax.psum(tree, AXIS)


def map_step(step: Callable, devices=None) -> Callable:
    """pmap of step(state, key, batch) -> (state, metrics) over the local devices.

    The state and the key are the same everywhere and carry no device axis; the batch's leading axis
    is split. What `step` returns must be equal on all devices, which psum makes it.
    """
    mapped = _map_step(step, devices)
    devices = devices or jax.local_devices()
    # placed as pmap returns it, or the second step would be compiled again
    placed = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())

    def run(state, key, batch):
        return mapped(jax.device_put(state, placed), key, split_batch(batch, len(devices)))

    return run


def _map_step(step, devices):
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )


def map_batches(function: Callable, devices=None) -> Callable:
    """function(params, examples) over any number of examples, split over the devices.

    `examples` is a tree of arrays [N, ...]. The last are padded with copies, whose results are
    dropped.
    """
    n = len(devices or jax.local_devices())
    mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)

    def run(params, examples, *, batch: int):
        total = len(jax.tree.leaves(examples)[0])
        # no more than `batch` at a time, and one scan costs one scan
        size = n * min(max(1, batch // n), -(-total // n))
        found = []
        for start in range(0, total, size):
            places = np.minimum(np.arange(start, start + size), total - 1)
            part = jax.tree.map(partial(np.take, indices=places, axis=0), examples)
            out = mapped(params, split_batch(part, n))
            keep = min(size, total - start)
            found.append(jax.tree.map(partial(_join_devices, keep=keep), out))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    return run


def _join_devices(array, keep):
    """[n, b, ...] to the first `keep` of [n b, ...], on the host."""
    array = np.asarray(array)
    return array.reshape(-1, *array.shape[2:])[:keep]


def split_batch(batch, n: int):
    """[B, ...] to [n, B/n, ...] in every array of a tree."""
    return jax.tree.map(lambda a: a.reshape(n, -1, *a.shape[1:]), batch)


def check_batch(batch: int, n: int | None = None) -> None:
    """Raise an InputError if a global batch does not divide by the number of devices."""
    n = n or jax.local_device_count()
    if batch < 1 or batch % n:
        raise InputError(f"config.train.batch: expected a multiple of the {n} devices, got {batch}")


def describe_devices() -> str:
    """For instance '1 cpu device' or '4 NVIDIA H100 devices'."""
    devices = jax.local_devices()
    plural = "s" if len(devices) > 1 else ""
    return f"{len(devices)} {devices[0].device_kind} device{plural}"


def say_devices() -> None:
    """Print what a run computes on, and warn of an accelerator that lies idle."""
    print(f"running on {describe_devices()}")
    if warning := find_idle_accelerator():
        print(f"warning: {warning}")


def find_idle_accelerator() -> str:
    """A warning if this machine seems to have a GPU or TPU that this JAX does not use, else ''."""
    if jax.default_backend() != "cpu":
        return ""
    if glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi"):
        return 'this machine has an NVIDIA GPU that JAX cannot use: pip install "jax[cuda13]"'
    if glob.glob("/dev/accel[0-9]*"):
        return 'this machine has a TPU that JAX cannot use: pip install "jax[tpu]"'
    return ""


def estimate_memory(step: Callable, state, batch: int, side: int, landmarks: int) -> int:
    """Bytes that a training step needs on each device: arguments, results and scratch.

    The step is compiled for the devices that are there; state holds shapes only.
    """
    n = jax.local_device_count()
    b = batch // n

    def shape(*sizes, dtype=np.float32):
        return jax.ShapeDtypeStruct((n, b, *sizes), dtype)

    examples = {
        "volumes": shape(side, side, side),
        "points_vox": shape(landmarks, 3),
        "counted": shape(landmarks, dtype=bool),
        "places": shape(dtype=np.int32),
    }
    key = jax.eval_shape(jax.random.key, 0)
    used = _map_step(step, None).lower(state, key, examples).compile().memory_analysis()
    return used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes
