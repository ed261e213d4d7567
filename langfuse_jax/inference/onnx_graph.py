"""Graphs of ONNX written as arithmetic: `op("Relu", x + 1.0)` adds two nodes. Only `Graph.model` needs onnx itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langfuse_jax.errors import UserError

OPSET = 18  # of 2022: onnxruntime 1.14 and later
_IR_VERSION = 8
_FLOAT = 1  # onnx.TensorProto.FLOAT


class Graph:
    """Nodes and constants in the order in which they were made."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self.constants: dict[tuple, tuple[str, np.ndarray]] = {}
        self.inputs: dict[str, Sequence[int | str]] = {}

    def input(self, name: str, shape: Sequence[int | str]) -> "Value":
        """A float32 input; names in `shape` stand for any size."""
        self.inputs[name] = shape
        return Value(self, name)

    def constant(self, value: Any) -> str:
        """The name of a constant. Numbers and arrays of floats are float32, whole ones int64; equal ones are one."""
        array = np.asarray(value)
        array = np.ascontiguousarray(array, np.int64 if array.dtype.kind == "i" else np.float32).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        return self.constants.setdefault(key, (f"constant_{len(self.constants)}", array))[0]

    def model(self, outputs: Mapping[str, tuple["Value", Sequence[int | str]]], metadata: Mapping[str, str]) -> bytes:
        """The serialised model, checked. Raises UserError where the package onnx is not installed.

        Example::

            graph = Graph()
            x = graph.input("x", ("n", 3))
            Path("twice.onnx").write_bytes(graph.model({"y": (2.0 * x, ("n", 3))}, {"version": "1"}))
        """
        onnx = load_onnx()
        helper = onnx.helper
        nodes = [helper.make_node(kind, inputs, made, **given) for kind, inputs, made, given in self.nodes]
        nodes += [helper.make_node("Identity", [value.name], [name]) for name, (value, _) in outputs.items()]
        graph = helper.make_graph(
            nodes,
            "langfuse_jax",
            [helper.make_tensor_value_info(name, _FLOAT, list(shape)) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info(name, _FLOAT, list(shape)) for name, (_, shape) in outputs.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.values()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="langfuse_jax")
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


class Value:
    """A tensor of a graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Any) -> "Value":
        return op("Add", self, other)

    def __sub__(self, other: Any) -> "Value":
        return op("Sub", self, other)

    def __mul__(self, other: Any) -> "Value":
        return op("Mul", self, other)

    def __truediv__(self, other: Any) -> "Value":
        return op("Div", self, other)

    def __matmul__(self, other: Any) -> "Value":
        return op("MatMul", self, other)

    def __radd__(self, other: Any) -> "Value":
        return op("Add", other, self)

    def __rsub__(self, other: Any) -> "Value":
        return op("Sub", other, self)

    def __rmul__(self, other: Any) -> "Value":
        return op("Mul", other, self)

    def __neg__(self) -> "Value":
        return op("Neg", self)


def op(kind: str, *inputs: Any, **attributes: Any) -> Value:
    """A node with one output. Inputs are values of one graph, what `Graph.constant` takes, or None for none.

    >>> x = Graph().input("x", ("n",))
    >>> op("Max", x, 0.0).name, [kind for kind, *_ in x.graph.nodes]
    ('max_0', ['Max'])
    """
    return ops(kind, 1, *inputs, **attributes)[0]


def ops(kind: str, count: int, *inputs: Any, **attributes: Any) -> list[Value]:
    """A node with several outputs, as `op`.

    >>> halves = ops("Split", 2, Graph().input("x", ("n",)), axis=0, num_outputs=2)
    >>> [half.name for half in halves]
    ['split_0', 'split_0_1']
    """
    graph = next(x.graph for x in inputs if isinstance(x, Value))
    names = ["" if x is None else x.name if isinstance(x, Value) else graph.constant(x) for x in inputs]
    first = f"{kind.lower()}_{len(graph.nodes)}"
    made = [first, *(f"{first}_{i}" for i in range(1, count))]
    graph.nodes.append((kind, names, made, attributes))
    return [Value(graph, name) for name in made]


def load_onnx() -> Any:
    """The package onnx. Raises UserError where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise UserError('--format onnx: needs onnx; install it with pip install "langfuse-jax[onnx]"') from error
    return onnx
