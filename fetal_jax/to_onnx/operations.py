"""JAX's primitives as ONNX nodes: arithmetic, shapes, sums, products, convolutions.

Each is (graph, equation, *values) -> value or [values].
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from fetal_jax.to_onnx.graph import Graph, Value


def _is_bool(equation) -> bool:
    return equation.invars[0].aval.dtype == bool


def _same(kind: str) -> Callable:
    """An operator with a counterpart that takes and gives the same."""
    return lambda graph, equation, *values: graph.emit(kind, *values)


def _logical(kind: str) -> Callable:
    """For booleans one, for integers another."""

    def write(graph, equation, *values):
        return graph.emit(kind if _is_bool(equation) else f"Bitwise{kind}", *values)

    return write


def _not_equal(graph, equation, a, b):
    return graph.emit("Not", graph.emit("Equal", a, b))


def _remainder(graph, equation, a, b):
    return graph.emit("Mod", a, b, fmod=1)  # of the sign of a, as in C


def _round(graph, equation, value):
    if equation.params["rounding_method"] != 1:
        raise NotImplementedError("ONNX rounds halves to even numbers alone")
    return graph.emit("Round", value)


def _power(graph, equation, value):
    exponent = equation.params["y"]
    if exponent == 2:
        return graph.emit("Mul", value, value)
    return graph.emit("Pow", value, np.float32(exponent))


def _is_finite(graph, equation, value):
    either = graph.emit("Or", graph.emit("IsNaN", value), graph.emit("IsInf", value))
    return graph.emit("Not", either)


def _reduce_precision(graph, equation, value):
    if (equation.params["exponent_bits"], equation.params["mantissa_bits"]) != (5, 10):
        raise NotImplementedError("there is no ONNX for a precision that is not float16's")
    return graph.cast(graph.emit("Cast", value, to=TensorProto.FLOAT16), "float32")


def _convert(graph, equation, value):
    return graph.cast(value, equation.params["new_dtype"])


def _select(graph, equation, which, *cases):
    if len(cases) != 2 or not _is_bool(equation):
        raise NotImplementedError("there is no ONNX for a choice among several")
    return graph.emit("Where", which, cases[1], cases[0])


def _clamp(graph, equation, low, value, high):
    return graph.emit("Min", graph.emit("Max", value, low), high)


# ---- shapes ----


def reshape_to(graph: Graph, value: Value, shape) -> Value:
    """A value in a shape whose sizes may be symbols."""
    return graph.emit("Reshape", value, graph.shape_of(shape))


def _reshape(graph, equation, value, *_):
    return reshape_to(graph, value, equation.outvars[0].aval.shape)


def _broadcast(graph, equation, value, *_):
    shape, kept = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    given = equation.invars[0].aval.shape
    thin = [1] * len(shape)
    for axis, size in zip(kept, given, strict=True):
        thin[axis] = size
    value = reshape_to(graph, value, thin) if len(thin) != len(given) else value
    return graph.emit("Expand", value, graph.shape_of(shape))


def _slice(graph, equation, value):
    start, end = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or [1] * len(start)
    axes = np.arange(len(start))
    return graph.emit(
        "Slice", value, graph.shape_of(start), graph.shape_of(end), axes, np.array(strides)
    )


def _reverse(graph, equation, value):
    axes = np.array(equation.params["dimensions"], np.int64)
    least = np.full(len(axes), np.iinfo(np.int64).min)
    return graph.emit("Slice", value, np.full(len(axes), -1), least, axes, np.full(len(axes), -1))


def _pad(graph, equation, value, filling):
    config = equation.params["padding_config"]
    if any(between for _, _, between in config):
        raise NotImplementedError("there is no ONNX for a padding between values")
    sizes = [low for low, _, _ in config] + [high for _, high, _ in config]
    if _is_bool(equation):
        raise NotImplementedError("there is no ONNX for a padding of booleans")
    return graph.emit("Pad", value, graph.shape_of(sizes), filling)


def _transpose(graph, equation, value):
    return graph.emit("Transpose", value, perm=[int(a) for a in equation.params["permutation"]])


def _concatenate(graph, equation, *values):
    return graph.emit("Concat", *values, axis=int(equation.params["dimension"]))


def _stack(graph, equation, *values):
    axis = int(equation.params["axis"])
    return graph.emit(
        "Concat", *(graph.emit("Unsqueeze", v, np.array([axis])) for v in values), axis=axis
    )


def _unstack(graph, equation, value):
    axis = int(equation.params["axis"])
    return [
        graph.emit("Gather", value, np.array(i), axis=axis) for i in range(len(equation.outvars))
    ]


def _iota(graph, equation, *_):
    shape, along = equation.outvars[0].aval.shape, equation.params["dimension"]
    size = graph.size_of(shape[along])
    one = np.array([0])
    ticks = graph.emit(
        "Range", np.array(0), graph.emit("Squeeze", size, one), np.array(1, np.int64)
    )
    ticks = graph.cast(ticks, equation.params["dtype"])
    thin = [size if axis == along else 1 for axis, size in enumerate(shape)]
    return graph.emit("Expand", reshape_to(graph, ticks, thin), graph.shape_of(shape))


def _size(graph, equation, *_):
    size = graph.emit("Squeeze", graph.size_of(equation.params["dim"]), np.array([0]))
    return graph.cast(size, equation.outvars[0].aval.dtype)


# ---- sums and products ----


def _reduce(kind: str) -> Callable:
    def write(graph, equation, value):
        axes = np.array(equation.params["axes"], np.int64)
        if not len(axes):
            return graph.emit("Identity", value)
        if not _is_bool(equation):
            return graph.emit(kind, value, axes, keepdims=0)
        found = graph.emit(kind, graph.cast(value, "int32"), axes, keepdims=0)
        return graph.cast(found, "bool")

    return write


def _arg(kind: str) -> Callable:
    def write(graph, equation, value):
        (axis,) = equation.params["axes"]
        value = graph.cast(value, "int32") if _is_bool(equation) else value
        found = graph.emit(kind, value, axis=int(axis), keepdims=0)
        return graph.cast(found, equation.outvars[0].aval.dtype)

    return write


def _cumulate(graph, equation, value):
    axis = np.array(equation.params["axis"], np.int64)
    return graph.emit("CumSum", value, axis, reverse=int(equation.params["reverse"]))


def _dot(graph, equation, a, b):
    (over_a, over_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    ndim_a, ndim_b = (len(v.aval.shape) for v in equation.invars)
    if (tuple(over_a), tuple(over_b)) == ((ndim_a - 1,), (0,)) and ndim_b == 2 and not batch_a:
        return graph.emit("MatMul", a, b)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    of_a = [next(letters) for _ in range(ndim_a)]
    of_b: list[str | None] = [None] * ndim_b
    for i, j in zip([*over_a, *batch_a], [*over_b, *batch_b], strict=True):
        of_b[j] = of_a[i]
    of_b = [letter or next(letters) for letter in of_b]
    batch = [of_a[i] for i in batch_a]
    left = [x for i, x in enumerate(of_a) if i not in over_a and i not in batch_a]
    right = [x for j, x in enumerate(of_b) if j not in over_b and j not in batch_b]
    equation_ = f"{''.join(of_a)},{''.join(of_b)}->{''.join(batch + left + right)}"
    return graph.emit("Einsum", a, b, equation=equation_)


def _convolve(graph, equation, x, kernel):
    p = equation.params
    ones = (1,) * len(p["window_strides"])
    plain = p["lhs_dilation"] == p["rhs_dilation"] == ones and p["batch_group_count"] == 1
    if not plain or p["feature_group_count"] != 1:
        raise NotImplementedError(f"there is no ONNX here for a convolution as {equation}")
    where = p["dimension_numbers"]
    pads = [low for low, _ in p["padding"]] + [high for _, high in p["padding"]]
    y = graph.emit(
        "Conv",
        _permute(graph, x, where.lhs_spec),
        _permute(graph, kernel, where.rhs_spec),
        pads=[int(n) for n in pads],
        strides=[int(n) for n in p["window_strides"]],
    )
    return _permute(graph, y, np.argsort(where.out_spec))


def _permute(graph: Graph, value: Value, axes) -> Value:
    axes = [int(axis) for axis in axes]
    if isinstance(value, str):
        return graph.emit("Transpose", value, perm=axes)
    return np.transpose(value, axes)


def _window_max(graph, equation, value):
    """As slices: what runtimes pad with is not always below everything."""
    p = equation.params
    window, padding = p["window_dimensions"], p["padding"]
    plain = (p["window_strides"], p["base_dilation"], p["window_dilation"])
    if any(n != 1 for each in plain for n in each):
        raise NotImplementedError(f"there is no ONNX here for a window as {equation}")
    for axis, (size, (low, high)) in enumerate(zip(window, padding, strict=True)):
        if size == 1:
            continue
        pads = np.zeros((2, len(window)), np.int64)
        pads[:, axis] = low, high
        padded = graph.emit("Pad", value, pads.reshape(-1), np.float32(-np.inf))
        length = equation.outvars[0].aval.shape[axis]
        value = graph.emit(
            "Max",
            *(
                graph.emit("Slice", padded, np.array([i]), np.array([i + length]), np.array([axis]))
                for i in range(size)
            ),
        )
    return value


OPERATIONS: dict[str, Callable] = {
    "abs": _same("Abs"),
    "add": _same("Add"),
    "and": _logical("And"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "broadcast_in_dim": _broadcast,
    "ceil": _same("Ceil"),
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolve,
    "convert_element_type": _convert,
    "copy": _same("Identity"),
    "cumsum": _cumulate,
    "dim_as_value": _size,
    "div": _same("Div"),
    "dot_general": _dot,
    "eq": _same("Equal"),
    "exp": _same("Exp"),
    "floor": _same("Floor"),
    "ge": _same("GreaterOrEqual"),
    "gt": _same("Greater"),
    "integer_pow": _power,
    "iota": _iota,
    "is_finite": _is_finite,
    "le": _same("LessOrEqual"),
    "log": _same("Log"),
    "log1p": lambda graph, _, x: graph.emit("Log", graph.emit("Add", x, np.float32(1))),
    "logistic": _same("Sigmoid"),
    "lt": _same("Less"),
    "max": _same("Max"),
    "min": _same("Min"),
    "mul": _same("Mul"),
    "ne": _not_equal,
    "neg": _same("Neg"),
    "not": _logical("Not"),
    "or": _logical("Or"),
    "pad": _pad,
    "reduce_and": _reduce("ReduceMin"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax"),
    "reduce_precision": _reduce_precision,
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _window_max,
    "rem": _remainder,
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "rsqrt": lambda graph, _, x: graph.emit("Reciprocal", graph.emit("Sqrt", x)),
    "select_n": _select,
    "sign": _same("Sign"),
    "slice": _slice,
    "sqrt": _same("Sqrt"),
    "square": lambda graph, _, x: graph.emit("Mul", x, x),
    "squeeze": _reshape,
    "stack": _stack,
    "stop_gradient": _same("Identity"),
    "sub": _same("Sub"),
    "tanh": _same("Tanh"),
    "transpose": _transpose,
    "unstack": _unstack,
    "xor": _logical("Xor"),
}
