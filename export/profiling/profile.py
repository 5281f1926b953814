"""Profile of an ONNX file: cost per layer, time measured on this machine, estimates for boards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.errors import InputError
from edgekit.export.profiling.cost import GraphCost, LayerCost, graph_cost, load_graph
from edgekit.export.profiling.layer_times import MeasuredGraph, measure_layers
from edgekit.export.profiling.roofline import BoardEstimate, Estimate, Precision, estimate, roofline_of
from edgekit.known_boards import KnownBoard

# Suffixes that ONNX Runtime appends to the names of nodes it rewrites.
_REWRITTEN = re.compile(r"(_nchwc|_nhwc|_token_\d+|_quant)+$")
# Operators of int8 graphs.
_QUANTIZED = re.compile(r"DequantizeLinear|^QLinear|^QGemm|Integer$")
_PRODUCTS = re.compile(r"Conv|Gemm|MatMul")


@dataclass(frozen=True)
class Profile:
    """Profile of a file, whose shapes are all known.

    `shares` has for each layer its share of the time measured on this machine; None if the runtime fused the layer into
    another one. `shares` is empty without a measurement. `runtime_share` is that of nodes that the runtime added.
    """

    cost: GraphCost
    precision: Precision
    measured: MeasuredGraph | None = None
    shares: tuple[float | None, ...] = ()
    runtime_share: float | None = None

    @property
    def layers(self) -> list[tuple[LayerCost, float | None]]:
        """Each layer with its share of the measured time."""
        return list(zip(self.cost.layers, self.shares or (None,) * len(self.cost.layers), strict=True))

    def on(self, board: KnownBoard, threads: int) -> BoardEstimate[Estimate]:
        """Return the estimated latency on a board, for one or four threads."""
        roofline = roofline_of(board.name, self.precision, threads)
        if roofline.reason:
            return BoardEstimate(board, threads, None, roofline.reason)
        macs, moved_bytes = zip(*((layer.macs or 0, layer.moved_bytes or 0) for layer in self.cost.layers), strict=True)
        return BoardEstimate(board, threads, estimate(macs, moved_bytes, roofline))


def profile_file(
    path: Path,
    *,
    size_wh: tuple[int, int] | None = None,
    intra_op_threads: int = 1,
    seconds: float = 0.0,
) -> Profile:
    """Return the profile of a file.

    Args:
        path: Any .onnx file.
        size_wh: Width and height of inputs whose width and height are dynamic.
        intra_op_threads: Threads of the measurement.
        seconds: Duration of the measurement; 0: no measurement.

    Raises:
        InputError: The file is not an ONNX model, a shape cannot be determined, or the model cannot be run.
    """
    model = load_graph(path)
    named = _with_names(model)
    fix_input_size(model, size_wh, path)
    cost = graph_cost(model)
    for layer in cost.layers:
        if layer.macs is None or layer.moved_bytes is None:
            raise InputError(
                f"model '{path}': the shapes at '{layer.name}' ({layer.op_type}) are computed in the inference: "
                "export it with its own program for a fixed input size"
            )
    precision: Precision = "int8" if any(_QUANTIZED.search(node.op_type) for node in model.graph.node) else "fp32"
    if not seconds:
        return Profile(cost, precision)
    measured = measure_layers(path, _inputs(model), intra_op_threads, seconds, named)
    shares, added = _shares(model, measured)
    return Profile(cost, precision, measured, tuple(map(shares.get, range(len(cost.layers)))), added)


def has_free_size(path: Path) -> bool:
    """Return whether the height or width of an input is dynamic.

    Raises:
        InputError: The file is not an ONNX model.
    """
    sizes = [value.type.tensor_type.shape.dim[2:] for value in _inputs(load_graph(path))]
    return any(not dim.dim_value > 0 for size in sizes if len(size) == 2 for dim in size)


def fix_input_size(model: onnx.ModelProto, size_wh: tuple[int, int] | None, path: Path) -> None:
    """Set the batch size of all inputs to 1, and dynamic heights and widths to `size_wh`.

    Raises:
        InputError: Another dimension is dynamic, or a size is dynamic and `size_wh` is None.
    """
    for value in _inputs(model):
        dims = value.type.tensor_type.shape.dim
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


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a model without its weights, which old files list as inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


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
