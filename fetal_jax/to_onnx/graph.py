"""An ONNX graph while it is written: nodes, constants, loops, and sizes known only when it runs.

A value is an array, known now, or the name of what a node gives.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 9  # onnxruntime 1.15 and later read them
LARGEST = 2**31 - 2**24  # bytes of a file, less what is not constants: protobuf takes no more
TYPES = {
    "float32": TensorProto.FLOAT,
    "bfloat16": TensorProto.FLOAT,  # which few runtimes compute in
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}

Value = np.ndarray | jax.Array | str


class Graph:
    """Nodes are appended in the order in which they are to run; constants are kept once."""

    def __init__(self):
        self._nodes: list[onnx.NodeProto] = []
        self._first: list[onnx.NodeProto] = []  # sizes of inputs: every loop may ask for them
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._sizes: dict[str, str] = {}
        self._count = 0

    def add_input(self, name: str, shape: Sequence, dtype: np.dtype) -> str:
        """An input; each of its sizes that is a symbol can be asked for from now on."""
        dims = _list_sizes(shape)
        self._inputs.append(helper.make_tensor_value_info(name, TYPES[str(dtype)], dims))
        whole = self._append(self._first, "Shape", [name])
        for axis, size in enumerate(dims):
            if isinstance(size, str):
                at = self.name_of(np.array([axis]))
                self._sizes[size] = self._append(self._first, "Gather", [whole, at])
        return name

    def name_of(self, value: Value) -> str:
        """The name of a value; an array becomes a constant of the file."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if str(array.dtype) == "bfloat16":
            array = array.astype(np.float32)
        array = np.ascontiguousarray(array).reshape(array.shape)
        content = hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        key = content.hexdigest()
        if key not in self._constants:
            name = f"constant{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name

    def emit(self, kind: str, *inputs: Value, **attributes) -> str:
        """One node with one output, its name."""
        return self._append(self._nodes, kind, list(map(self.name_of, inputs)), **attributes)

    def emit_several(self, kind: str, *inputs: Value, count: int, **attributes) -> list[str]:
        """One node with so many outputs."""
        names = [self._new_name() for _ in range(count)]
        given = list(map(self.name_of, inputs))
        self._nodes.append(helper.make_node(kind, given, names, **attributes))
        return names

    def cast(self, value: Value, dtype: np.dtype | str) -> str:
        return self.emit("Cast", value, to=TYPES[str(dtype)])

    def size_of(self, size) -> Value:
        """[1] int64 of one size of a shape, which may be an expression of symbols, as 2*x - 1."""
        if not isinstance(size, (int, np.integer)):
            if str(size) not in self._sizes:
                symbols = {name: _Size(self, value) for name, value in self._sizes.items()}
                try:  # JAX writes an expression so that it can be read again
                    read = eval(str(size), {"__builtins__": {}}, symbols)
                except NameError:
                    raise NotImplementedError(f"there is no ONNX for a size of {size}") from None
                self._sizes[str(size)] = read.name
            return self._sizes[str(size)]
        return np.array([size], np.int64)

    def shape_of(self, shape: Sequence) -> Value:
        """[N] int64 of a shape."""
        sizes = [self.size_of(size) for size in shape]
        if all(isinstance(size, np.ndarray) for size in sizes):
            return np.array([int(size[0]) for size in sizes], np.int64)
        return self.emit("Concat", *sizes, axis=0)

    def combine_sizes(self, kind: str, a: Value, b: Value) -> str:
        return self._append(self._first, kind, [self.name_of(a), self.name_of(b)])

    def loop(
        self,
        count: int | None,
        going_on: Value,
        carried: Sequence[tuple[Value, np.dtype]],
        write_body: Callable,
    ) -> list[str]:
        """A loop over values that are carried along; returns them, then what was collected.

        Args:
          count: how often, None: until it says so.
          going_on: [] bool, whether to begin.
          carried: values at the start, with their types.
          write_body: (place, names) -> (whether to go on, the next values, [(collected, type)]);
            place is the name of the number of the turn.
        """
        place, go = self._new_name(), self._new_name()
        names = [self._new_name() for _ in carried]
        with self._scope() as nodes:
            more, following, collected = write_body(place, names)
            out = [self.emit("Identity", value) for value in (more or go, *following)]
            out += [self.emit("Identity", value) for value, _ in collected]
        types = [dtype for _, dtype in (*carried, *collected)]
        body = helper.make_graph(
            nodes,
            self._new_name(),
            [
                helper.make_tensor_value_info(place, TensorProto.INT64, []),
                helper.make_tensor_value_info(go, TensorProto.BOOL, []),
                *_declare(names, types[: len(names)]),
            ],
            [
                helper.make_tensor_value_info(out[0], TensorProto.BOOL, []),
                *_declare(out[1:], types),
            ],
        )
        limit = "" if count is None else np.array(count, np.int64)
        start = [value for value, _ in carried]
        return self.emit_several("Loop", limit, going_on, *start, count=len(types), body=body)

    def finish(
        self,
        outputs: dict[str, tuple[Value, Sequence, np.dtype]],
        *,
        title: str,
        producer: str,
        about: dict[str, str],
    ) -> bytes:
        """The file: outputs are name -> value, shape, type; `about` is its metadata.

        The same graph is the same bytes.
        """
        if sum(len(one.raw_data) for one in self._constants.values()) > LARGEST:
            raise NotImplementedError("a file of ONNX holds no more than 2 GB")
        declared = []
        for name, (value, shape, dtype) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [self.name_of(value)], [name]))
            declared.append(
                helper.make_tensor_value_info(name, TYPES[str(dtype)], _list_sizes(shape))
            )
        graph = helper.make_graph(
            [*self._first, *self._nodes],
            title,
            self._inputs,
            declared,
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.producer_name = producer
        helper.set_model_props(model, about)
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)

    @contextlib.contextmanager
    def _scope(self) -> Iterator[list[onnx.NodeProto]]:
        """What is emitted goes into the list that is given."""
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def _append(self, nodes, kind, inputs, **attributes) -> str:
        name = self._new_name()
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _new_name(self) -> str:
        self._count += 1
        return f"v{self._count}"


class _Size:
    """A size while its expression is read."""

    def __init__(self, graph: Graph, name: Value):
        self.graph, self.name = graph, name

    def _combine(self, kind, a, b):
        a, b = (v.name if isinstance(v, _Size) else np.array([v], np.int64) for v in (a, b))
        return _Size(self.graph, self.graph.combine_sizes(kind, a, b))

    def __add__(self, other):
        return self._combine("Add", self, other)

    def __sub__(self, other):
        return self._combine("Sub", self, other)

    def __mul__(self, other):
        return self._combine("Mul", self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return self._combine("Sub", other, self)

    def __neg__(self):
        return self._combine("Mul", self, -1)


def _list_sizes(shape: Sequence) -> list[int | str]:
    return [int(n) if isinstance(n, (int, np.integer)) else str(n) for n in shape]


def _declare(names, types) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TYPES[str(dtype)], None)
        for name, dtype in zip(names, types, strict=True)
    ]
