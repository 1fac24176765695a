"""JAX's primitives as ONNX nodes: what is taken from where, and in which order."""

from collections.abc import Callable

import numpy as np

from fetal_jax.to_onnx.graph import Graph, Value
from fetal_jax.to_onnx.operations import reshape_to


def _gather(graph, equation, value, indices):
    """All of `lax.gather` whose indices are within bounds or are to be brought there.

    The whole index of each value of the result is computed: where its window begins, and where it
    is in the window.
    """
    params, numbers = equation.params, equation.params["dimension_numbers"]
    if "FILL" in str(params["mode"]):
        raise NotImplementedError("there is no ONNX here for indices outside")
    sizes = [int(n) for n in params["slice_sizes"]]
    shape, given = equation.outvars[0].aval.shape, equation.invars[0].aval.shape
    batch_shape = equation.invars[1].aval.shape[:-1]
    offset_dims = [int(n) for n in numbers.offset_dims]
    batch_dims = [axis for axis in range(len(shape)) if axis not in offset_dims]
    without = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    windowed = [axis for axis in range(len(sizes)) if axis not in without]
    starts = graph.cast(indices, "int64")

    def along_batch(ticks):  # [*batch_shape] as it lies in the result
        thin = [1] * len(shape)
        for axis, size in zip(batch_dims, batch_shape, strict=True):
            thin[axis] = size
        return reshape_to(graph, ticks, thin)

    def along(axis, size):  # 0, 1, … along an axis of the result
        thin = [size if i == axis else 1 for i in range(len(shape))]
        return np.arange(size, dtype=np.int64).reshape(thin)

    parts = []
    for axis, size in enumerate(sizes):
        index: Value = np.zeros([1] * len(shape), np.int64)
        if axis in numbers.start_index_map:
            place = list(numbers.start_index_map).index(axis)
            start = graph.emit("Gather", starts, np.array(place), axis=len(batch_shape))
            start = along_batch(_keep_within(graph, start, given[axis], size))
            index = graph.emit("Add", index, start)
        elif axis in numbers.operand_batching_dims:
            which = list(numbers.operand_batching_dims).index(axis)
            place = int(numbers.start_indices_batching_dims[which])
            index = along(batch_dims[place], int(batch_shape[place]))
        if axis in windowed and size > 1:
            index = graph.emit("Add", index, along(offset_dims[windowed.index(axis)], size))
        index = graph.emit("Expand", index, graph.shape_of(shape))
        parts.append(graph.emit("Unsqueeze", index, np.array([len(shape)])))
    return graph.emit("GatherND", value, graph.emit("Concat", *parts, axis=len(shape)))


def _keep_within(graph: Graph, start: Value, size, window: int) -> Value:
    """Where a window of so many may begin in a size, which may be a symbol."""
    last = graph.emit("Sub", graph.size_of(size), np.array([window], np.int64))
    last = graph.emit("Squeeze", last, np.array([0]))
    return graph.emit("Min", graph.emit("Max", start, np.array(0, np.int64)), last)


def _dynamic_slice(graph, equation, value, *starts):
    sizes, given = equation.params["slice_sizes"], equation.invars[0].aval.shape
    axes, begins = np.arange(len(sizes)), []
    for start, whole, size in zip(starts, given, sizes, strict=True):
        begin = _keep_within(graph, graph.cast(start, "int64"), whole, size)
        begins.append(graph.emit("Unsqueeze", begin, np.array([0])))
    begin = graph.emit("Concat", *begins, axis=0)
    end = graph.emit("Add", begin, np.array(sizes, np.int64))
    return graph.emit("Slice", value, begin, end, axes)


def _sort(graph, equation, *values):
    """By the first of the values; equals stay in order."""
    axis = int(equation.params["dimension"])
    if equation.params["num_keys"] != 1:
        raise NotImplementedError("there is no ONNX for a sort by several keys")
    size = graph.size_of(equation.invars[0].aval.shape[axis])
    first, order = graph.emit_several("TopK", values[0], size, count=2, axis=axis, largest=0)
    return [first, *(graph.emit("GatherElements", v, order, axis=axis) for v in values[1:])]


def _top(graph, equation, value):
    axis = equation.params.get("axis", equation.params.get("operand_axis", -1))
    size = np.array([equation.params["k"]], np.int64)
    found, places = graph.emit_several("TopK", value, size, count=2, axis=int(axis))
    return [found, graph.cast(places, equation.outvars[1].aval.dtype)]


INDEXING: dict[str, Callable] = {
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "sort": _sort,
    "top_k": _top,
}
