"""Cost counter: layers, parameters, multiply-accumulates and memory traffic of any ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekit.errors import InputError
from edgekit.export.tensors import WEIGHT_TYPES, Shape, TensorInfo, constant_tensors, graph_tensors, product
from edgekit.files import require_file

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
# Operators that only rename or reshape a tensor; MOVE_NOTHING has all operators for which no runtime copies memory.
RENAME = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
MOVE_NOTHING = RENAME | {"Constant", "Shape"}


@dataclass(frozen=True)
class LayerCost:
    """Cost of one node; `macs` and bytes are None if a shape they depend on is unknown.

    Traffic is counted without reuse in a cache: each node reads all its constants (`weight_bytes`) and all its other
    inputs (`read_bytes`) and writes its outputs (`written_bytes`). Reshape and similar operators move no bytes.
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
    names the graph's operators whose multiply-accumulates are not counted, `moveless` its operators that move no byte.
    `peak_activation_bytes` is the largest total size of activations that are live at the same time, without weights, if
    the nodes run in the file's order; None if a shape is unknown.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    uncounted: tuple[str, ...]
    moveless: tuple[str, ...]
    peak_activation_bytes: int | None

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

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity: floating-point operations (two per multiply-accumulate) per byte moved."""
        return 2 * self.macs / self.moved_bytes if self.macs is not None and self.moved_bytes else None


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


def graph_cost(model: onnx.ModelProto, seen: Mapping[str, TensorInfo] | None = None) -> GraphCost:
    """Return the cost of one inference at batch size 1.

    Multiply-accumulates per output value: (input channels / groups) * kernel area for Conv, the inner dimension for
    Gemm and MatMul. Quantised operators count in the same way; adding a bias does not count. `seen` has the shapes that
    shape inference does not determine, see `graph_tensors`.

    Raises:
        InputError: Shape inference fails.
    """
    constants = constant_tensors(model.graph)
    tensors = graph_tensors(model, constants, seen)
    owned: set[str] = set()
    layers = []
    for index, node in enumerate(model.graph.node):
        moves = node.op_type not in MOVE_NOTHING
        weights = [name for name in node.input if name in constants]
        activations = [name for name in node.input if name and name not in constants]
        layers.append(
            LayerCost(
                name=node.name or f"{node.op_type}_{index}",
                op_type=node.op_type,
                output_shape=tensors[node.output[0]].shape if node.output and node.output[0] in tensors else None,
                parameters=sum(math.prod(constants[name].dims) for name in _weights(node, constants, owned)),
                macs=_macs(node, tensors),
                weight_bytes=size_bytes(weights, tensors) if moves else 0,
                read_bytes=size_bytes(activations, tensors) if moves else 0,
                written_bytes=size_bytes(filter(None, node.output), tensors) if moves else 0,
            )
        )
    kinds = {node.op_type for node in model.graph.node}
    return GraphCost(
        layers=tuple(layers),
        parameters=sum(layer.parameters for layer in layers),
        uncounted=tuple(sorted(kinds & _NOT_COUNTED)),
        moveless=tuple(sorted(kinds & MOVE_NOTHING)),
        peak_activation_bytes=_peak_bytes(model.graph, constants, tensors),
    )


def _weights(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], owned: set[str]) -> Iterator[str]:
    statistics = _STATISTICS.get(node.op_type, ())
    for position, name in enumerate(node.input):
        is_weight = name in constants and constants[name].data_type in WEIGHT_TYPES
        if is_weight and name not in owned and position not in statistics:
            owned.add(name)
            yield name


def _macs(node: onnx.NodeProto, tensors: Mapping[str, TensorInfo]) -> int | None:
    if node.op_type not in _PRODUCTS:
        return 0
    kind, second_input = _PRODUCTS[node.op_type]
    if len(node.input) <= second_input:
        return None
    names = (node.input[0], node.input[second_input], node.output[0])
    first, second, output = (tensors[name].shape if name in tensors else None for name in names)
    if not first or not second or output is None:
        return None
    if kind == "Conv":
        per_value = second[1:]  # (out, in / groups, *kernel)
    elif kind == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        per_value = first[:1] if transposed else first[-1:]
    else:
        per_value = first[-1:]
    return product((*output, *per_value))


def size_bytes(names: Iterable[str], tensors: Mapping[str, TensorInfo]) -> int | None:
    """Return the total size of tensors; None if one is unknown."""
    return _total(tensors[name].size_bytes if name in tensors else None for name in names)


def _peak_bytes(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], tensors: Mapping[str, TensorInfo]
) -> int | None:
    """Return the largest total size of tensors that are live at the same time.

    A tensor is live from its producer to its last reader.
    """
    source: dict[str, str] = {}  # the tensor that a node renames, by the node's output
    last_use: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if node.op_type in RENAME and node.input and node.input[0] not in constants:
            source[node.output[0]] = source.get(node.input[0], node.input[0])
        for name in (*node.input, *node.output):
            last_use[source.get(name, name)] = index
    for value in graph.output:
        last_use[source.get(value.name, value.name)] = len(graph.node)
    living = {value.name for value in graph.input if value.name not in constants}
    peak: int | None = 0
    for index, node in enumerate(graph.node):
        living.update(name for name in node.output if name and name not in constants and name not in source)
        now = size_bytes(living, tensors)
        peak = None if peak is None or now is None else max(peak, now)
        living = {name for name in living if last_use.get(name, -1) > index}
    return peak


def _total(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
