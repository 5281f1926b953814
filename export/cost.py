"""The one counter: layers, parameters and multiply-accumulates of an ONNX graph, ours or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekit.errors import InputError
from edgekit.files import require_file

# A tensor's shape; None where a dimension is free or unknown.
Shape = tuple[int | None, ...]

# Inputs that hold learned values but are not trained: BatchNorm's running mean and variance.
_STATISTICS = {"BatchNormalization": (3, 4)}
# Types of weights, quantised ones among them; what else is constant in a graph are shapes and indices.
_WEIGHT_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)
_NOT_COUNTED = frozenset(
    {"ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "MatMulInteger"}
    | {"QLinearConv", "QLinearMatMul", "RNN", "Scan"}
)


@dataclass(frozen=True)
class LayerCost:
    """One node of the graph. `macs` is None where a shape it depends on is not known."""

    name: str
    op_type: str
    output_shape: Shape | None
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class GraphCost:
    """What one inference with a batch of one takes.

    `parameters` are the values of the weights in the graph, each counted once however often it is used; BatchNorm's
    running statistics are no parameters. `uncounted` names kinds of nodes whose multiply-accumulates are left out.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of Conv, Gemm and MatMul nodes; None where a layer's are not known."""
        counts = [layer.macs for layer in self.layers]
        return None if None in counts else sum(count for count in counts if count is not None)


def load_graph(path: Path) -> onnx.ModelProto:
    """Return an ONNX file's content; tensors stored outside the file are not read.

    Raises:
        InputError: No such file, or no ONNX model.
    """
    require_file(path, "model")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(f"model '{path}' is no ONNX file: {error}") from error
    if not model.graph.node:
        raise InputError(f"model '{path}' is no ONNX file: it holds no graph")
    return model


def graph_cost(model: onnx.ModelProto) -> GraphCost:
    """Return the cost of one inference with a batch of one.

    Multiply-accumulates per output value: Conv (in channels / groups) * kernel area, Gemm and MatMul the inner
    dimension; a bias adds none.

    Raises:
        InputError: The graph is invalid, so its shapes cannot be worked out.
    """
    constants = _constants(model.graph)
    shapes = _infer_shapes(model)
    owned: set[str] = set()
    layers = []
    for index, node in enumerate(model.graph.node):
        layers.append(
            LayerCost(
                name=node.name or f"{node.op_type}_{index}",
                op_type=node.op_type,
                output_shape=shapes.get(node.output[0]) if node.output else None,
                parameters=sum(math.prod(constants[name].dims) for name in _weights(node, constants, owned)),
                macs=_macs(node, shapes),
            )
        )
    return GraphCost(
        layers=tuple(layers),
        parameters=sum(layer.parameters for layer in layers),
        uncounted=tuple(sorted({node.op_type for node in model.graph.node} & _NOT_COUNTED)),
    )


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for item in node.attribute:
                if item.name == "value" and item.HasField("t"):
                    constants[node.output[0]] = item.t
    return constants


def _weights(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], owned: set[str]) -> Iterator[str]:
    statistics = _STATISTICS.get(node.op_type, ())
    for position, name in enumerate(node.input):
        is_weight = name in constants and constants[name].data_type in _WEIGHT_TYPES
        if is_weight and name not in owned and position not in statistics:
            owned.add(name)
            yield name


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    first, second, output = (shapes.get(name) for name in (*node.input[:2], node.output[0]))
    if not first or not second or output is None:
        return None
    if node.op_type == "Conv":
        per_value = second[1:]  # (out, in / groups, *kernel)
    elif node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        per_value = first[:1] if transposed else first[-1:]
    else:
        per_value = first[-1:]
    return _product((*output, *per_value))


def _product(dimensions: Shape) -> int | None:
    known = [dimension for dimension in dimensions if dimension is not None]
    return math.prod(known) if len(known) == len(dimensions) else None


def _infer_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    batch_of_one = onnx.ModelProto()
    batch_of_one.CopyFrom(model)
    graph = batch_of_one.graph
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constants:
            _set_batch_of_one(value)
    # What the file says of its other tensors may hold for another batch size.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(batch_of_one, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InputError(f"the graph is invalid, its shapes cannot be worked out: {error}") from error
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    return known | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _set_batch_of_one(value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    if tensor.HasField("shape") and len(tensor.shape.dim) > 1:
        tensor.shape.dim[0].dim_value = 1


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim
    )
