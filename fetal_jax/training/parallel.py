"""A function over a batch, mapped over devices: the only module that names the axis.

Examples are split over the devices; with a depth above 1 so many devices share an example, each
with a slab of its depth. Each process loads its share of a batch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fetal_jax.examples import Examples
from fetal_jax.training.compiling import compile_at_call, compile_faster

Tree = TypeVar("Tree")

AXIS = "devices"  # examples
DEPTH = "depth"  # slabs of an example


def psum(tree: Tree) -> Tree:
    """Sum over the devices, inside a function that `map_step` or `map_batches` maps."""
    return jax.lax.psum(tree, AXIS)


def make_mesh(depth: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices (all, of every process, by default) as [examples, depth]."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices).reshape(-1, depth), (AXIS, DEPTH))


def split_depth(examples: Examples, mesh: Mesh) -> Examples:
    """Inside a mapped function: from here on the depth of the volumes is split over the mesh's."""
    if mesh.shape[DEPTH] == 1:
        return examples
    split = NamedSharding(mesh, PartitionSpec(None, DEPTH))
    return examples._replace(volumes=jax.lax.with_sharding_constraint(examples.volumes, split))


def map_step(
    step: Callable, devices: Sequence[jax.Device] | None = None, depth: int = 1
) -> Callable:
    """step(state, key, examples) -> (state, metrics), mapped over the devices of all processes.

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
        mapped = compile_at_call(mapped, local[0].platform, whole=depth == 1)
    return lambda state, key, batch: mapped(jax.device_put(state, placed), key, load(batch))


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


def map_batches(
    function: Callable, devices: Sequence[jax.Device] | None = None, depth: int = 1
) -> Callable:
    """function(params, examples) over any number of examples, split over processes and devices.

    `examples` is a tree of arrays [N, ...], or of what gives one when it is indexed with some of N,
    the same in every process, and so is the result. The last are padded with copies, whose results
    are dropped.
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
        mapped = compile_at_call(mapped, mesh.devices.flat[0].platform, whole=depth == 1)

    def run_share(params, examples, places, batch):
        # no more than `batch` at a time, and one scan costs one scan
        size = n * min(max(1, batch // n), -(-len(places) // n))
        params = jax.device_put(params, placed)
        found = []
        for start in range(0, len(places), size):
            chosen = places[np.minimum(np.arange(start, start + size), len(places) - 1)]
            part = jax.tree.map(partial(_take, chosen), examples)
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


def _take(chosen, array):
    return np.asarray(array[chosen])


def _join_devices(array, keep):
    """[n, b, ...] to the first `keep` of [n b, ...], on the host."""
    array = np.asarray(array)
    return array.reshape(-1, *array.shape[2:])[:keep]


def _join_processes(array, total):
    """Every process's own [n, ...] to [total, ...], in the order of the examples."""
    every = np.asarray(multihost_utils.process_allgather(array))  # [processes, n, ...]
    return np.swapaxes(every, 0, 1).reshape(-1, *array.shape[1:])[:total]


def split_batch(batch: Tree, n: int) -> Tree:
    """[B, ...] to [n, B/n, ...] in every array of a tree."""
    return jax.tree.map(lambda a: a.reshape(n, -1, *a.shape[1:]), batch)


def compile_step(
    step: Callable,
    state: Any,
    *,
    batch: int,
    shape: tuple[int, int, int],
    landmarks: int,
    depth: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> jax.stages.Compiled:
    """The program of a training step, for devices (by default those that are there).

    Args:
      step: of `training.from_config.build_step`.
      state: shapes are enough.
      batch, shape, landmarks: B, (D, H, W) and L of its examples.
    """
    n = len(devices or jax.devices()) // depth

    def array(*sizes, dtype=np.float32):
        return jax.ShapeDtypeStruct((n, batch // n, *sizes), dtype)

    examples = Examples(
        volumes=array(*shape),
        affines=array(4, 4),
        points_vox=array(landmarks, 3),
        present=array(landmarks, dtype=bool),
        visible=array(landmarks, dtype=bool),
        places=array(dtype=np.int32),
    )
    key = jax.eval_shape(jax.random.key, 0)
    platform = (devices or jax.devices())[0].platform
    mapped = _map_step(step, devices, depth)
    return compile_faster(mapped, state, key, examples, platform=platform, whole=depth == 1)
