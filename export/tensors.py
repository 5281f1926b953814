"""The tensors of an ONNX graph for a batch of one: shapes, sizes in bytes, and which of them are constant."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgekit.errors import InputError

# A tensor's shape; None where a dimension is free or unknown.
Shape = tuple[int | None, ...]

# Types of weights, quantised ones among them; what else is constant in a graph are shapes and indices.
WEIGHT_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)
_BITS_BY_NAME = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor; None where it is not."""

    shape: Shape | None
    element_bits: int | None

    @property
    def size_bytes(self) -> int | None:
        """Bytes of its elements, packed."""
        elements = None if self.shape is None else product(self.shape)
        return None if elements is None or self.element_bits is None else (elements * self.element_bits + 7) // 8


def product(dimensions: Shape) -> int | None:
    """Return the product, or None where a dimension is not known."""
    known = [dimension for dimension in dimensions if dimension is not None]
    return math.prod(known) if len(known) == len(dimensions) else None


def constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the tensors whose values the file holds, by name: initialisers and outputs of Constant nodes."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for item in node.attribute:
                if item.name == "value" and item.HasField("t"):
                    constants[node.output[0]] = item.t
    return constants


def graph_tensors(
    model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto], seen: Mapping[str, TensorInfo] | None = None
) -> dict[str, TensorInfo]:
    """Return what shape inference finds out about every tensor when the batch is one.

    What it does not find out is taken from `seen`, see `edgekit.export.profiling.layer_times.seen_tensors`.

    Raises:
        InputError: The graph is invalid, so its shapes cannot be worked out.
    """
    batch_of_one = onnx.ModelProto()
    batch_of_one.CopyFrom(model)
    graph = batch_of_one.graph
    initialisers = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in initialisers:
            _set_batch_of_one(value)
    # What the file says of its other tensors may hold for another batch size.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(batch_of_one, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError) as error:
        raise InputError(f"the graph is invalid, its shapes cannot be worked out: {error}") from error
    values = (*graph.input, *graph.value_info, *graph.output)
    inferred = {value.name: TensorInfo(_shape(value), _bits(value.type.tensor_type.elem_type)) for value in values}
    for name, info in (seen or {}).items():
        if name not in inferred or inferred[name].size_bytes is None:
            inferred[name] = info
    return inferred | {
        name: TensorInfo(tuple(tensor.dims), _bits(tensor.data_type)) for name, tensor in constants.items()
    }


def structure_sha256(model: onnx.ModelProto) -> str:
    """Return a SHA-256 of the graph without its weights' values, names of makers, and notes on it and on its nodes.

    Files of one architecture have the same, whatever they were trained to; so they cost the same.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=model.graph)
    graph = bare.graph
    graph.ClearField("name")
    for noted in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        noted.ClearField("doc_string")
        # torch's exporter notes lines and paths of sources.
        noted.ClearField("metadata_props")
    biases = _quantized_biases(graph)
    for name, tensor in constant_tensors(graph).items():
        if tensor.data_type in WEIGHT_TYPES or name in biases:
            for field in ("raw_data", "float_data", "int32_data", "double_data", "external_data"):
                tensor.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _quantized_biases(graph: onnx.GraphProto) -> set[str]:
    """Return the names of tensors that hold biases of quantised nodes: int32, as indices may be too."""
    position = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
    return {
        node.input[position[node.op_type]]
        for node in graph.node
        if node.op_type in position and len(node.input) > position[node.op_type]
    }


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


def _bits(data_type: int) -> int | None:
    try:
        name = onnx.TensorProto.DataType.Name(data_type)
    except ValueError:
        return None
    # FLOAT8E4M3FN, INT4, BFLOAT16 and all others but a few say it themselves.
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else _BITS_BY_NAME.get(name)
