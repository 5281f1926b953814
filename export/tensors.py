"""Tensors of an ONNX graph at batch size 1: shapes, sizes in bytes, and which of them are constant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgekit.errors import InputError

# Shape of a tensor; None for a dynamic or unknown dimension.
Shape = tuple[int | None, ...]

# Element types of weights; constants of other types are shapes and indices.
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
    """Shape and element size of a tensor; None for what is unknown."""

    shape: Shape | None
    element_bits: int | None

    @property
    def size_bytes(self) -> int | None:
        """Size of all elements in bytes, without padding."""
        elements = None if self.shape is None else product(self.shape)
        return None if elements is None or self.element_bits is None else (elements * self.element_bits + 7) // 8


def product(dimensions: Shape) -> int | None:
    """Return the product of the dimensions, or None if one is unknown."""
    known = [dimension for dimension in dimensions if dimension is not None]
    return math.prod(known) if len(known) == len(dimensions) else None


def constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the graph's constant tensors, initialisers and outputs of Constant nodes, by name."""
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
    """Return the shape and element size of every tensor at batch size 1.

    For tensors whose shape ONNX's shape inference does not determine, `seen` has shape and size; it is the result of
    `edgekit.export.profiling.layer_times.seen_tensors`.

    Raises:
        InputError: Shape inference fails.
    """
    batch_of_one = onnx.ModelProto()
    batch_of_one.CopyFrom(model)
    graph = batch_of_one.graph
    initialisers = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in initialisers:
            _set_batch_of_one(value)
    # Shapes stored in the file may be those of another batch size.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(batch_of_one, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError) as error:
        raise InputError(f"the graph is invalid, shape inference fails: {error}") from error
    values = (*graph.input, *graph.value_info, *graph.output)
    inferred = {value.name: TensorInfo(_shape(value), _bits(value.type.tensor_type.elem_type)) for value in values}
    for name, info in (seen or {}).items():
        if name not in inferred or inferred[name].size_bytes is None:
            inferred[name] = info
    return inferred | {
        name: TensorInfo(tuple(tensor.dims), _bits(tensor.data_type)) for name, tensor in constants.items()
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
    # Most type names hold their width: FLOAT8E4M3FN, INT4, BFLOAT16.
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else _BITS_BY_NAME.get(name)
