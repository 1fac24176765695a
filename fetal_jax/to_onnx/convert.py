"""A function of JAX as an ONNX file: its jaxpr, equation by equation.

Sizes of inputs may be symbols. What depends on no input is computed now, as long as it is small.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.extend.core import Literal

from fetal_jax.to_onnx.graph import Graph, Value
from fetal_jax.to_onnx.indexing import INDEXING
from fetal_jax.to_onnx.operations import OPERATIONS

TRANSLATIONS = OPERATIONS | INDEXING
LARGEST = 1 << 14  # values of what is computed now and was not as large before
INLINED = ("jit", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


def convert(
    function: Callable,
    inputs: dict[str, jax.ShapeDtypeStruct],
    *,
    title: str,
    producer: str,
    about: dict[str, str],
) -> bytes:
    """The file of `function`, which takes the inputs in order and returns {name: array}.

    Args:
      title, producer: the graph's name, and the program's.
      about: what else the file is to say of itself, its metadata.

    Raises:
      NotImplementedError: it does what has no translation here.
    """
    traced, outputs = jax.make_jaxpr(function, return_shape=True)(*inputs.values())
    graph = Graph()
    named = [graph.add_input(name, given.shape, given.dtype) for name, given in inputs.items()]
    values = translate(graph, traced.jaxpr, traced.consts, named)
    return graph.finish(
        {
            name: (value, outputs[name].shape, outputs[name].dtype)
            for name, value in zip(sorted(outputs), values, strict=True)  # as JAX has them
        },
        title=title,
        producer=producer,
        about=about,
    )


def translate(graph: Graph, jaxpr, consts: Sequence[Value], given: Sequence[Value]) -> list[Value]:
    """Append the equations of a jaxpr; returns its outputs."""
    known: dict = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, given, strict=True)

    def read(atom):
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        known |= zip(equation.outvars, _translate_one(graph, equation, values), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _translate_one(graph: Graph, equation, values: list[Value]) -> list[Value]:
    name = equation.primitive.name
    if name in INLINED:
        params = equation.params
        inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        consts = getattr(inner, "consts", ())
        return translate(graph, getattr(inner, "jaxpr", inner), consts, values)
    if name in CONTROL:
        return CONTROL[name](graph, equation, values)
    if _can_fold(equation, values):
        return _fold(equation, values)
    if name not in TRANSLATIONS:
        raise NotImplementedError(f"there is no ONNX for JAX's {name}: {equation}")
    result = TRANSLATIONS[name](graph, equation, *values)
    return result if isinstance(result, list) else [result]


def _can_fold(equation, values: list[Value]) -> bool:
    name = equation.primitive.name
    if name == "dim_as_value" or any(isinstance(value, str) for value in values):
        return False
    half = any(str(atom.aval.dtype) == "bfloat16" for atom in (*equation.invars, *equation.outvars))
    if half and name not in IN_NUMPY:  # it is float32 here
        return False
    shapes = [out.aval.shape for out in equation.outvars]
    if not all(isinstance(n, (int, np.integer)) for shape in shapes for n in shape):
        return False
    largest = max([LARGEST, *(np.size(value) for value in values)])
    return sum(int(np.prod(shape)) for shape in shapes) <= largest


def _fold(equation, values: list[Value]) -> list[Value]:
    if equation.primitive.name in IN_NUMPY:
        return [IN_NUMPY[equation.primitive.name](equation, *values)]
    found = equation.primitive.bind(*values, **equation.params)
    found = found if equation.primitive.multiple_results else [found]
    # keys of random numbers are no arrays of numpy
    return [
        value if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(value)
        for value in found
    ]


def _broadcast_now(equation, value) -> np.ndarray:
    shape, kept = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    thin = [1] * len(shape)
    for axis, size in zip(kept, np.shape(value), strict=True):
        thin[axis] = size
    return np.broadcast_to(np.reshape(value, thin), shape)


def _count_now(equation) -> np.ndarray:
    shape, along = equation.outvars[0].aval.shape, equation.params["dimension"]
    thin = [size if axis == along else 1 for axis, size in enumerate(shape)]
    ticks = np.arange(shape[along], dtype=equation.params["dtype"])
    return np.broadcast_to(ticks.reshape(thin), shape)


def _convert_now(equation, value) -> np.ndarray:
    dtype = equation.params["new_dtype"]
    return np.asarray(value).astype(np.float32 if dtype == "bfloat16" else dtype)


def _reshape_now(equation, value) -> np.ndarray:
    return np.reshape(value, equation.outvars[0].aval.shape)


# what JAX would compile anew for each shape
IN_NUMPY = {
    "broadcast_in_dim": _broadcast_now,
    "convert_element_type": _convert_now,
    "iota": _count_now,
    "reshape": _reshape_now,
    "squeeze": _reshape_now,
}


def _choose_platform(graph: Graph, equation, values) -> list[Value]:
    """Which branch of `lax.platform_dependent` it is: that of no platform in particular."""
    return [np.int32(equation.params["platforms"].index(None))]


def _take_branch(graph: Graph, equation, values) -> list[Value]:
    index, *operands = values
    if isinstance(index, str):
        raise NotImplementedError(f"there is no ONNX for a branch on data: {equation}")
    branch = equation.params["branches"][int(index)]
    return translate(graph, branch.jaxpr, branch.consts, operands)


def _scan(graph: Graph, equation, values) -> list[Value]:
    params = equation.params
    inner, length = params["jaxpr"], params["length"]
    begin, end = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, start, sliced = values[:begin], values[begin:end], values[end:]
    if params["reverse"]:
        raise NotImplementedError("there is no ONNX for a scan from behind")

    def step(place, carried):
        each = [_take_first(graph, value, place) for value in sliced]
        out = translate(graph, inner.jaxpr, inner.consts, [*consts, *carried, *each])
        return out[: len(start)], out[len(start) :]

    if length == 1:
        carried, collected = step(np.int64(0), start)
        return [*carried, *(_add_first_axis(graph, value) for value in collected)]
    types = [v.aval.dtype for v in equation.outvars]

    def write_body(place, names):
        carried, collected = step(place, names)
        return None, carried, list(zip(collected, types[len(start) :], strict=True))

    begun = list(zip(start, types, strict=False))
    return graph.loop(length, np.array(True), begun, write_body)


def _while(graph: Graph, equation, values) -> list[Value]:
    params = equation.params
    n, m = params["cond_nconsts"], params["body_nconsts"]
    asked, fixed, start = values[:n], values[n : n + m], values[n + m :]
    test, body = params["cond_jaxpr"], params["body_jaxpr"]

    def holds(carried):
        return translate(graph, test.jaxpr, test.consts, [*asked, *carried])[0]

    def write_body(_, names):
        following = translate(graph, body.jaxpr, body.consts, [*fixed, *names])
        return holds(following), following, []

    types = [v.aval.dtype for v in equation.outvars]
    return graph.loop(None, holds(start), list(zip(start, types, strict=True)), write_body)


def _take_first(graph: Graph, value: Value, place: Value) -> Value:
    """value[place] along its first axis."""
    if isinstance(value, str) or isinstance(place, str):
        return graph.emit("Gather", value, place, axis=0)
    return np.asarray(value)[place]


def _add_first_axis(graph: Graph, value: Value) -> Value:
    if isinstance(value, str):
        return graph.emit("Unsqueeze", value, np.array([0]))
    return np.asarray(value)[None]


CONTROL = {
    "platform_index": _choose_platform,
    "cond": _take_branch,
    "scan": _scan,
    "while": _while,
}
