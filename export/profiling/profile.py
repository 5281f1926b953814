"""Profile of an ONNX file: cost per layer, time measured on this machine, estimates for boards."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.errors import InputError
from edgekit.export.profiling.cost import GraphCost, graph_cost, load_graph
from edgekit.export.profiling.layer_times import MeasuredGraph, measure_layers, seen_tensors
from edgekit.export.profiling.roofline import Estimate, LayerWork, Precision, estimate, roofline_of
from edgekit.export.profiling.traffic import moved_bytes, weight_bytes
from edgekit.export.tensors import WEIGHT_TYPES, Shape, constant_tensors
from edgekit.known_boards import KnownBoard

# Suffixes that ONNX Runtime appends to the names of nodes it rewrites.
_REWRITTEN = re.compile(r"(_nchwc|_nhwc|_token_\d+|_quant)+$")
_EIGHT_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_PRODUCTS = re.compile(r"Conv|Gemm|MatMul")


@dataclass(frozen=True)
class LayerProfile:
    """Profile of one node of the file.

    `moved_bytes` is the node's traffic without reuse in a cache, with quantisation fused into the nodes around it.
    `share` is the node's share of the time measured on this machine; None if not measured or if the runtime fused it
    into another node.
    """

    name: str
    op_type: str
    output_shape: Shape | None
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    moved_bytes: int
    share: float | None

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity: operations (two per multiply-accumulate) per byte moved without reuse."""
        return 2 * self.macs / self.moved_bytes if self.moved_bytes else None


@dataclass(frozen=True)
class Profile:
    """Profile of a file; `runtime_share` is the share of the measured time spent in nodes that the runtime added."""

    layers: tuple[LayerProfile, ...]
    cost: GraphCost
    precision: Precision
    measured: MeasuredGraph | None
    runtime_share: float | None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def moved_bytes(self) -> int:
        """Bytes moved without reuse in a cache."""
        return sum(layer.moved_bytes for layer in self.layers)

    def on(self, board: KnownBoard, threads: int) -> Estimate | str:
        """Return the estimated latency on a board, or the reason why there is no estimate."""
        roofline = roofline_of(board.name, self.precision, threads)
        work = [LayerWork(layer.name, layer.macs, layer.moved_bytes) for layer in self.layers]
        return roofline.reason or estimate(work, roofline)


def profile_file(
    path: Path,
    *,
    size_wh: tuple[int, int] | None = None,
    intra_op_threads: int = 1,
    seconds: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> Profile:
    """Return the profile of a file.

    Args:
        path: Any .onnx file.
        size_wh: Width and height of inputs whose width and height are dynamic.
        intra_op_threads: Threads of the measurement.
        seconds: Duration of the measurement; 0: no measurement.
        progress: Called with the share of the measurement that is done, 0..1.

    Raises:
        InputError: The file is not an ONNX model, a shape cannot be determined, or the model cannot be run.
    """
    model = load_graph(path)
    named = _with_names(model)
    fix_input_size(model, size_wh, path)
    shapes = _fixed_shapes(model)
    cost, seen = graph_cost(model), None
    if cost.macs is None or cost.moved_bytes is None:
        seen = seen_tensors(model, path, shapes)
        cost = graph_cost(model, seen)
    moved, constants = moved_bytes(model, seen), weight_bytes(model, seen)
    measured, other = None, None
    shares: dict[int, float] = {}
    if seconds:
        measured = measure_layers(path, intra_op_threads, seconds, shapes, progress, named)
        shares, other = _shares(model, measured)
    layers = []
    for index, layer in enumerate(cost.layers):
        bytes_moved, weights = moved[index], constants[index]
        if layer.macs is None or bytes_moved is None or weights is None:
            raise InputError(f"model '{path}': the shapes at '{layer.name}' ({layer.op_type}) are unknown")
        weights = min(weights, bytes_moved)
        layers.append(
            LayerProfile(
                name=layer.name,
                op_type=layer.op_type,
                output_shape=layer.output_shape,
                parameters=layer.parameters,
                macs=layer.macs,
                weight_bytes=weights,
                activation_bytes=bytes_moved - weights,
                moved_bytes=bytes_moved,
                share=shares.get(index) if measured else None,
            )
        )
    return Profile(tuple(layers), cost, _precision(model, cost), measured, other)


def has_free_size(path: Path) -> bool:
    """Return whether the height or width of an input is dynamic.

    Raises:
        InputError: The file is not an ONNX model.
    """
    model = load_graph(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    sizes = [value.type.tensor_type.shape.dim[2:] for value in model.graph.input if value.name not in constants]
    return any(not dim.dim_value > 0 for size in sizes if len(size) == 2 for dim in size)


def fix_input_size(model: onnx.ModelProto, size_wh: tuple[int, int] | None, path: Path) -> None:
    """Set the batch size of all inputs to 1, and dynamic heights and widths to `size_wh`.

    Raises:
        InputError: Another dimension is dynamic, or a size is dynamic and `size_wh` is None.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constants or not dims:
            continue
        if len(dims) > 1:
            dims[0].dim_value = 1
        if size_wh and len(dims) == 4:
            for dim, size in zip(dims[2:], reversed(size_wh), strict=True):
                if not dim.dim_value > 0:
                    dim.dim_value = size
        free = [index for index, dim in enumerate(dims) if not dim.dim_value > 0]
        if free and size_wh is None and len(dims) == 4 and 1 not in free:
            raise InputError(f"model '{path}': input '{value.name}' has a dynamic size: give a size (--size WxH)")
        if free:
            sizes = ", ".join(str(dim.dim_value) if dim.dim_value > 0 else "?" for dim in dims)
            raise InputError(
                f"model '{path}': input '{value.name}' is ({sizes}), and a size sets only the height and width of "
                "an image: export it again with a fixed size of that input"
            )


def _with_names(model: onnx.ModelProto) -> bytes | None:
    """Return the model with names for all nodes, serialised; None if the file itself can be profiled.

    Nodes without a name get one in place, because ONNX Runtime's profiler identifies nodes by name. The result is None
    if all nodes have names, or if tensors are stored outside the file, because their paths are relative to it.
    """
    nameless = [index for index, node in enumerate(model.graph.node) if not node.name]
    outside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    if not nameless or outside:
        return None
    for index in nameless:
        node = model.graph.node[index]
        node.name = f"{node.op_type}_{index}"
    return bytes(model.SerializeToString())


def _fixed_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}


def _shares(model: onnx.ModelProto, measured: MeasuredGraph) -> tuple[dict[int, float], float]:
    """Return the share of the measured time by node index, and the share of all nodes that the runtime added.

    ONNX Runtime names a convolution with fused activation after the activation or its output tensor; the time of that
    node is counted for the convolution.
    """
    numbers = {node.name: index for index, node in enumerate(model.graph.node) if node.name}
    makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    shares: dict[int, float] = {}
    other = 0.0
    for found in measured.nodes:
        plain = _REWRITTEN.sub("", found.name)
        index = next(
            (table[name] for table in (numbers, makers) for name in (found.name, plain) if name in table), None
        )
        if index is None:
            other += found.share
            continue
        if _PRODUCTS.search(found.op_type):
            index = _back_to_product(model.graph, index, makers)
        shares[index] = shares.get(index, 0.0) + found.share
    return shares, other


def _back_to_product(graph: onnx.GraphProto, index: int, makers: Mapping[str, int]) -> int:
    at = index
    for _ in range(len(graph.node)):
        node = graph.node[at]
        if _PRODUCTS.search(node.op_type):
            return at
        before = next((makers[name] for name in node.input if name in makers), None)
        if before is None:
            break
        at = before
    return index


def _precision(model: onnx.ModelProto, cost: GraphCost) -> Precision:
    """Return the data type of the weights that most multiply-accumulates use."""
    constants = constant_tensors(model.graph)
    stored_as = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    eight_bits = 0
    for node, layer in zip(model.graph.node, cost.layers, strict=True):
        weights = [constants[name] for name in (stored_as.get(name, name) for name in node.input) if name in constants]
        largest = max(
            (tensor for tensor in weights if tensor.data_type in WEIGHT_TYPES),
            key=lambda tensor: len(tensor.dims),
            default=None,
        )
        if largest is not None and largest.data_type in _EIGHT_BITS:
            eight_bits += layer.macs or 0
    return "int8" if 2 * eight_bits > (cost.macs or 0) else "fp32"
