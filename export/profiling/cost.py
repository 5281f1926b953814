"""Cost counter: layers, parameters, multiply-accumulates and memory traffic of any ONNX graph.

Traffic is counted without a cache, with quantisation fused into the nodes around it: ONNX Runtime and ncnn read and
write the 8-bit tensors of a quantised graph directly.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekit.errors import InputError
from edgekit.files import require_file

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
# Input positions of constants that are not trained: BatchNorm's running mean and variance.
_STATISTICS = {"BatchNormalization": (3, 4)}
_NOT_COUNTED = frozenset({"ConvTranspose", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan"})
# Operators that multiply and accumulate: the plain operator they count as, and the position of the second factor.
_PRODUCTS = {
    "Conv": ("Conv", 1),
    "ConvInteger": ("Conv", 1),
    "QLinearConv": ("Conv", 3),
    "FusedConv": ("Conv", 1),
    "Gemm": ("Gemm", 1),
    "QGemm": ("Gemm", 3),
    "MatMul": ("MatMul", 1),
    "MatMulInteger": ("MatMul", 1),
    "QLinearMatMul": ("MatMul", 3),
}
# Operators that only rename or reshape a tensor; _MOVE_NOTHING has all operators for which no runtime copies memory.
_RENAME = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_MOVE_NOTHING = _RENAME | {"Constant", "Shape"}


@dataclass(frozen=True)
class _Tensor:
    """Shape and element size of a tensor; None for what is unknown."""

    shape: Shape | None
    element_bits: int | None

    @property
    def size_bytes(self) -> int | None:
        """Size of all elements in bytes, without padding."""
        elements = None if self.shape is None else _product(self.shape)
        return None if elements is None or self.element_bits is None else (elements * self.element_bits + 7) // 8


@dataclass(frozen=True)
class LayerCost:
    """Cost of one node; `macs` and bytes are None if a shape they depend on is unknown.

    Each node reads all its constants (`weight_bytes`) and all its other inputs (`read_bytes`) and writes its outputs
    (`written_bytes`). Reshape and similar operators move no bytes.
    """

    name: str
    op_type: str
    output_shape: Shape | None
    parameters: int
    macs: int | None
    weight_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None

    @property
    def moved_bytes(self) -> int | None:
        """Bytes read and written."""
        return _total((self.weight_bytes, self.read_bytes, self.written_bytes))


@dataclass(frozen=True)
class GraphCost:
    """Cost of one inference at batch size 1, node by node, without the fusion that a runtime does.

    `parameters` counts each weight once, however often it is used, without BatchNorm's running statistics. `uncounted`
    names the graph's operators whose multiply-accumulates are not counted.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of convolutions and matrix products; None if unknown for a layer."""
        return _total(layer.macs for layer in self.layers)

    @property
    def weight_bytes(self) -> int | None:
        """Bytes of constants read; a constant used twice is read twice."""
        return _total(layer.weight_bytes for layer in self.layers)

    @property
    def read_bytes(self) -> int | None:
        """Bytes read, except constants."""
        return _total(layer.read_bytes for layer in self.layers)

    @property
    def written_bytes(self) -> int | None:
        """Bytes of activations written."""
        return _total(layer.written_bytes for layer in self.layers)

    @property
    def moved_bytes(self) -> int | None:
        """All bytes read and written."""
        return _total(layer.moved_bytes for layer in self.layers)


def load_graph(path: Path) -> onnx.ModelProto:
    """Return the model of an ONNX file; tensors stored outside the file are not read.

    Raises:
        InputError: The file does not exist or is not an ONNX model.
    """
    require_file(path, "model")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(f"model '{path}' is not an ONNX file: {error}") from error
    if not model.graph.node:
        raise InputError(f"model '{path}' is not an ONNX file: it has no graph")
    return model


def graph_cost(model: onnx.ModelProto) -> GraphCost:
    """Count the cost of one inference at batch size 1, node by node.

    Multiply-accumulates per output value: (input channels / groups) * kernel area for Conv, the inner dimension for
    Gemm and MatMul. Quantised operators count in the same way; adding a bias does not count.

    Raises:
        InputError: Shape inference fails.
    """
    constants = constant_tensors(model.graph)
    tensors = _tensors(model, constants)
    # Names of tensors that are stored under another name, and indices of nodes that a runtime merges into others.
    stored_as, fused = _fused(model.graph, constants)
    counted: set[str] = set()  # weights of earlier nodes, which `_new_weights` adds
    layers = []
    for index, node in enumerate(model.graph.node):
        read, written = [], []  # names of tensors in memory
        if index not in fused and node.op_type not in _MOVE_NOTHING:
            read = [_stored(name, stored_as) for name in node.input if name]  # a missing input has the name ""
            written = [_stored(name, stored_as) for name in node.output if name]
        output = tensors.get(node.output[0]) if node.output else None
        layers.append(
            LayerCost(
                name=node.name or f"{node.op_type}_{index}",
                op_type=node.op_type,
                output_shape=output.shape if output else None,
                parameters=sum(math.prod(constants[name].dims) for name in _new_weights(node, constants, counted)),
                macs=_macs(node, tensors),
                weight_bytes=_size_bytes([name for name in read if name in constants], tensors),
                read_bytes=_size_bytes([name for name in read if name not in constants], tensors),
                written_bytes=_size_bytes(written, tensors),
            )
        )
    return GraphCost(
        layers=tuple(layers),
        parameters=sum(layer.parameters for layer in layers),
        uncounted=tuple(sorted({node.op_type for node in model.graph.node} & _NOT_COUNTED)),
    )


def _fused(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> tuple[dict[str, str], set[int]]:
    """Find the tensors that a runtime does not store, and the nodes that it does not run.

    A renamed tensor, such as the output of Reshape, is the input under another name. A runtime fuses DequantizeLinear
    into the nodes that read its output, and QuantizeLinear into the node that computes its input: only the 8-bit tensor
    is stored.

    Returns:
        For each tensor that is not stored, the one that is stored instead; and the indices of the fused nodes.
    """
    reader_counts = Counter(name for node in graph.node for name in node.input)
    graph_outputs = {value.name for value in graph.output}
    computed = {name for node in graph.node for name in node.output}
    stored_as: dict[str, str] = {}
    fused: set[int] = set()
    for index, node in enumerate(graph.node):
        source = node.input[0] if node.input else ""
        if node.op_type in _RENAME and source not in constants:  # a reshaped constant is a tensor of its own
            stored_as[node.output[0]] = source
        elif node.op_type == "DequantizeLinear":
            stored_as[node.output[0]] = source
            fused.add(index)
        elif node.op_type == "QuantizeLinear":
            # A float tensor that another node reads, or that is an output of the graph, is stored as well.
            is_needed = reader_counts[source] > 1 or source in graph_outputs
            if source in computed and not is_needed:  # an input of the graph stays a float tensor
                stored_as[source] = node.output[0]
                fused.add(index)
    return stored_as, fused


def _stored(name: str, stored_as: Mapping[str, str]) -> str:
    """Return the name of the tensor in memory that holds the values of a tensor; `stored_as` is from `_fused`.

    The names are followed from tensor to tensor; in a damaged graph, this may lead in a circle.
    """
    seen = {name}
    while name in stored_as and stored_as[name] not in seen:
        name = stored_as[name]
        seen.add(name)
    return name


def _new_weights(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], counted: set[str]) -> Iterator[str]:
    """Yield the names of a node's trained weights that are not in `counted`, those of earlier nodes, and add them."""
    statistics = _STATISTICS.get(node.op_type, ())  # positions of inputs that are not trained
    for position, name in enumerate(node.input):
        is_constant = name in constants and constants[name].data_type in WEIGHT_TYPES
        if is_constant and position not in statistics and name not in counted:
            counted.add(name)
            yield name


def _macs(node: onnx.NodeProto, tensors: Mapping[str, _Tensor]) -> int | None:
    """Return the multiply-accumulates of a convolution or matrix product; 0 for other nodes, None for unknown shapes.

    They are the number of output values times the number of products that are added for each value.
    """
    if node.op_type not in _PRODUCTS:
        return 0
    # Most quantised operators have scale and zero point of the first factor before the second one.
    kind, second_position = _PRODUCTS[node.op_type]
    if len(node.input) <= second_position:
        return None
    names = (node.input[0], node.input[second_position], node.output[0])
    first, second, output = (tensors[name].shape if name in tensors else None for name in names)
    if not first or not second or output is None:  # unknown, or a scalar
        return None
    if kind == "Conv":
        summed = second[1:]  # weights: (out, in / groups, *kernel)
    elif kind == "Gemm" and any(attribute.name == "transA" and attribute.i for attribute in node.attribute):
        summed = first[:1]  # of the transposed first factor
    else:
        summed = first[-1:]
    return _product((*output, *summed))


def _size_bytes(names: Iterable[str], tensors: Mapping[str, _Tensor]) -> int | None:
    """Return the size of several tensors; None if one is unknown."""
    return _total(tensors[name].size_bytes if name in tensors else None for name in names)


def _total(counts: Iterable[int | None]) -> int | None:
    """Return the sum, or None if one count is unknown."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _product(dimensions: Shape) -> int | None:
    """Return the product of the dimensions, or None if one is unknown."""
    known = [dimension for dimension in dimensions if dimension is not None]
    return math.prod(known) if len(known) == len(dimensions) else None


def constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the graph's constant tensors, initialisers and outputs of Constant nodes, by name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for item in node.attribute:
                if item.name == "value" and item.HasField("t"):  # and not value_int, value_floats, …
                    constants[node.output[0]] = item.t
    return constants


def _tensors(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, _Tensor]:
    """Return the shape and element size of every tensor at batch size 1, as far as ONNX's shape inference finds them.

    Raises:
        InputError: Shape inference fails.
    """
    batch_of_one = onnx.ModelProto()
    batch_of_one.CopyFrom(model)
    graph = batch_of_one.graph
    initialisers = {tensor.name for tensor in graph.initializer}  # old files list them among the inputs, too
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in initialisers and len(dims) > 1:  # a vector has no batch dimension
            dims[0].dim_value = 1
    # Shapes stored in the file may be those of another batch size, so all of them are inferred.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(batch_of_one, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError) as error:
        raise InputError(f"the graph is invalid, shape inference fails: {error}") from error
    values = (*graph.input, *graph.value_info, *graph.output)
    inferred = {value.name: _Tensor(_shape(value), _bits(value.type.tensor_type.elem_type)) for value in values}
    return inferred | {name: _Tensor(tuple(tensor.dims), _bits(tensor.data_type)) for name, tensor in constants.items()}


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    """Return the shape of a tensor, with None for a dynamic dimension; None if even the rank is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim
    )


def _bits(data_type: int) -> int | None:
    """Return the size in bits of an element of one of ONNX's data types; None if it is unknown."""
    try:
        name = onnx.TensorProto.DataType.Name(data_type)
    except ValueError:
        return None
    # Most names contain the size: FLOAT8E4M3FN, INT4, BFLOAT16.
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else _BITS_BY_NAME.get(name)
