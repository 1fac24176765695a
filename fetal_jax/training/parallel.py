"""Devices and processes: the only module that knows how many there are.

Examples are split over the devices; with a depth above 1 so many devices share an example, each
with a slab of its depth. With several processes (`start_processes`) all run the same program: each
loads its share of a batch, and only the first reads and writes the run's folder.
"""

import ctypes
import glob
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fetal_jax.errors import InputError

AXIS = "devices"  # examples
DEPTH = "depth"  # slabs of an example
# A sixth off a step at 64³ on two cores (jaxlib 0.10.2): another library for matrix products.
FASTER = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}}
# Numbers and values of glibc's mallopt: one arena for all threads, never trimmed, nothing mapped.
MALLOC = {"arena_max": (-8, 1), "trim_threshold": (-1, -1), "mmap_max": (-4, 0)}


def psum(tree):
    """Sum over the devices, inside a function that `map_step` or `map_batches` maps."""
    return jax.lax.psum(tree, AXIS)


def reuse_memory() -> None:
    """Keep freed memory for the next step; call it before JAX starts a device. Does glibc's only.

    A step's buffers are large, and glibc returns each to the system, which clears its pages anew at
    the next step. Kept, they cost a fraction more memory.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option:
        for option, value in MALLOC.values():
            set_option(option, value)


# ---- processes ----


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


def from_first(make: Callable):
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


def localise(tree):
    """Arrays that are the same everywhere, as this process can use and save them."""
    return tree if jax.process_count() == 1 else jax.device_get(tree)


# ---- devices ----


def make_mesh(depth: int = 1, devices=None) -> Mesh:
    """Devices (all, of every process, by default) as [examples, depth]."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices).reshape(-1, depth), (AXIS, DEPTH))


def split_depth(volumes: jax.Array, mesh: Mesh) -> jax.Array:
    """[b, D, ...] inside a mapped function: from here on D is split over the mesh's depth."""
    if mesh.shape[DEPTH] == 1:
        return volumes
    return jax.lax.with_sharding_constraint(
        volumes, NamedSharding(mesh, PartitionSpec(None, DEPTH))
    )


def map_step(step: Callable, devices=None, depth: int = 1) -> Callable:
    """step(state, key, batch) -> (state, metrics), mapped over the devices of all processes.

    The state and the key are the same everywhere and carry no device axis; this process's share of
    the batch is split over its devices. What `step` returns must be equal on all devices, which
    psum makes it. With a depth of 1 this is a pmap; else XLA's partitioner exchanges the borders of
    the slabs, and `step` says with `split_depth` where they begin.
    """
    mapped = _map_step(step, devices, depth)
    mesh = make_mesh(depth, devices)
    local = mesh.local_devices
    if depth == 1:
        # placed as pmap returns it, or the second step would be compiled again
        placed = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec())
        load = partial(split_batch, n=len(local))
    else:
        placed = NamedSharding(mesh, PartitionSpec())
        load = partial(_place_batch, mesh=mesh)

    if jax.process_count() == 1:  # a compiled pmap takes no arrays of one process
        mapped = _compile_at_call(mapped, local[0].platform)
    return lambda state, key, batch: mapped(jax.device_put(state, placed), key, load(batch))


def _compile_at_call(mapped, platform: str) -> Callable:
    """`mapped`, compiled by `compile_faster` for each set of shapes."""
    programs = {}

    def run(*args):
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(args))
        if shapes not in programs:
            programs[shapes] = compile_faster(mapped, *args, platform=platform)
        return programs[shapes](*args)

    return run


def compile_faster(mapped, *args, platform: str = "") -> jax.stages.Compiled:
    """The program of mapped(*args), with options that suit the platform, if jaxlib has them."""
    lowered, platform = mapped.lower(*args), platform or jax.default_backend()
    try:
        return lowered.compile(compiler_options=FASTER.get(platform))
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


def _map_step(step, devices, depth):
    if depth == 1:
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, None, 0),
            out_axes=(None, None),
            donate_argnums=(0,),
            devices=devices,
        )
    mesh = make_mesh(depth, devices)
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (AXIS,)))
    mapped = jax.vmap(
        step, in_axes=(None, None, 0), out_axes=None, axis_name=AXIS, spmd_axis_name=AXIS
    )
    return jax.jit(
        mapped, in_shardings=(whole, whole, split), out_shardings=whole, donate_argnums=(0,)
    )


def _place_batch(batch, mesh):
    """A process's share of a batch, split over the examples of the mesh; the depth is whole."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    local = mesh.local_mesh.shape[AXIS]
    return jax.tree.map(
        partial(jax.make_array_from_process_local_data, split), split_batch(batch, local)
    )


def map_batches(function: Callable, devices=None, depth: int = 1) -> Callable:
    """function(params, examples) over any number of examples, split over processes and devices.

    `examples` is a tree of arrays [N, ...], the same in every process, and so is the result. The
    last are padded with copies, whose results are dropped.
    """
    mesh = make_mesh(depth, devices or jax.local_devices())
    n = mesh.shape[AXIS]
    if depth == 1:
        local = list(mesh.devices.flat)
        mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=local)
        placed = NamedSharding(Mesh(np.array(local), (AXIS,)), PartitionSpec())
    else:
        whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (AXIS,)))
        mapped = jax.jit(
            jax.vmap(function, in_axes=(None, 0), axis_name=AXIS, spmd_axis_name=AXIS),
            in_shardings=(whole, split),
        )
        placed = whole
    if jax.process_count() == 1:
        mapped = _compile_at_call(mapped, mesh.devices.flat[0].platform)

    def run_share(params, examples, places, batch):
        # no more than `batch` at a time, and one scan costs one scan
        size = n * min(max(1, batch // n), -(-len(places) // n))
        params = jax.device_put(params, placed)
        found = []
        for start in range(0, len(places), size):
            chosen = places[np.minimum(np.arange(start, start + size), len(places) - 1)]
            part = jax.tree.map(partial(np.take, indices=chosen, axis=0), examples)
            out = mapped(params, split_batch(part, n))
            keep = min(size, len(places) - start)
            found.append(jax.tree.map(partial(_join_devices, keep=keep), out))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def run(params, examples, *, batch: int):
        total, processes = len(jax.tree.leaves(examples)[0]), jax.process_count()
        # each process takes every so many-th; all take the same number
        places = np.arange(jax.process_index(), processes * -(-total // processes), processes)
        found = run_share(params, examples, np.minimum(places, total - 1), batch)
        if processes == 1:
            return found
        return jax.tree.map(partial(_join_processes, total=total), found)

    return run


def _join_devices(array, keep):
    """[n, b, ...] to the first `keep` of [n b, ...], on the host."""
    array = np.asarray(array)
    return array.reshape(-1, *array.shape[2:])[:keep]


def _join_processes(array, total):
    """Every process's own [n, ...] to [total, ...], in the order of the examples."""
    every = np.asarray(multihost_utils.process_allgather(array))  # [processes, n, ...]
    return np.swapaxes(every, 0, 1).reshape(-1, *array.shape[1:])[:total]


def split_batch(batch, n: int):
    """[B, ...] to [n, B/n, ...] in every array of a tree."""
    return jax.tree.map(lambda a: a.reshape(n, -1, *a.shape[1:]), batch)


def check_batch(batch: int, devices: int | None = None, depth: int = 1) -> None:
    """Raise an InputError if the devices cannot share a global batch."""
    devices = devices or jax.device_count()
    each = devices // jax.process_count()  # a volume is split within a process
    if depth < 1 or each % depth:
        raise InputError(
            f"config.devices.depth: expected a divisor of the {each} devices of a process, "
            f"got {depth}"
        )
    groups = devices // depth
    if batch < 1 or batch % groups:
        what = "devices" if depth == 1 else f"groups of {depth} devices"
        raise InputError(
            f"config.train.batch: expected a multiple of the {groups} {what}, got {batch}"
        )


def describe_devices() -> str:
    """For instance '1 cpu device' or '16 TPU v4 devices in 4 processes'."""
    devices, processes = jax.devices(), jax.process_count()
    plural = "s" if len(devices) > 1 else ""
    together = f" in {processes} processes" if processes > 1 else ""
    return f"{len(devices)} {devices[0].device_kind} device{plural}{together}"


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


def compile_step(
    step: Callable,
    state,
    *,
    batch: int,
    side: int,
    landmarks: int,
    depth: int = 1,
    devices=None,
) -> jax.stages.Compiled:
    """The program of a training step, for devices (by default those that are there).

    Args:
      step: of `network.build_step`.
      state: shapes are enough.
      batch, side, landmarks: B, D = H = W and L of its examples.
    """
    n = len(devices or jax.devices()) // depth

    def shape(*sizes, dtype=np.float32):
        return jax.ShapeDtypeStruct((n, batch // n, *sizes), dtype)

    examples = {
        "volumes": shape(side, side, side),
        "points_vox": shape(landmarks, 3),
        "counted": shape(landmarks, dtype=bool),
        "places": shape(dtype=np.int32),
    }
    key = jax.eval_shape(jax.random.key, 0)
    platform = (devices or jax.devices())[0].platform
    mapped = _map_step(step, devices, depth)
    return compile_faster(mapped, state, key, examples, platform=platform)


def measure_memory(program: jax.stages.Compiled) -> int:
    """Bytes that a program needs on each device: arguments, results and scratch."""
    used = program.memory_analysis()
    there = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    return there + used.temp_size_in_bytes
