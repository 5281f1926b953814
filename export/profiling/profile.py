"""Profile of an ONNX file: cost per layer, and estimates for boards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.errors import InputError
from edgekit.export.profiling.cost import GraphCost, graph_cost, load_graph
from edgekit.export.profiling.roofline import BoardEstimate, Estimate, Precision, estimate, roofline_of
from edgekit.known_boards import KnownBoard

# Operators of int8 graphs.
_QUANTIZED = re.compile(r"DequantizeLinear|^QLinear|^QGemm|Integer$")


@dataclass(frozen=True)
class Profile:
    """Profile of a file, whose shapes are all known."""

    cost: GraphCost
    precision: Precision

    def on(self, board: KnownBoard, threads: int) -> BoardEstimate[Estimate]:
        """Return the estimated latency on a board, for one or four threads."""
        roofline = roofline_of(board.name, self.precision, threads)
        if roofline.reason:
            return BoardEstimate(board, threads, estimate=None, reason=roofline.reason)
        # `profile_file` has checked that no count is None.
        macs = [layer.macs or 0 for layer in self.cost.layers]
        moved_bytes = [layer.moved_bytes or 0 for layer in self.cost.layers]
        return BoardEstimate(board, threads, estimate(macs, moved_bytes, roofline))


def profile_file(path: Path, size_wh: tuple[int, int] | None = None) -> Profile:
    """Return the profile of a file.

    Args:
        path: Any .onnx file.
        size_wh: Width and height of inputs whose width and height are dynamic.

    Raises:
        InputError: The file is not an ONNX model, or a shape cannot be determined.
    """
    model = load_graph(path)
    _fix_input_size(model, size_wh, path)
    cost = graph_cost(model)
    for layer in cost.layers:
        if layer.macs is None or layer.moved_bytes is None:
            raise InputError(
                f"model '{path}': the shapes at '{layer.name}' ({layer.op_type}) are computed in the inference: "
                "export it with its own program for a fixed input size"
            )
    is_quantized = any(_QUANTIZED.search(node.op_type) for node in model.graph.node)
    return Profile(cost, "int8" if is_quantized else "fp32")


def _fix_input_size(model: onnx.ModelProto, size_wh: tuple[int, int] | None, path: Path) -> None:
    """Set the batch size of all inputs to 1, and dynamic heights and widths to `size_wh`.

    Raises:
        InputError: A size stays dynamic.
    """
    weights = {tensor.name for tensor in model.graph.initializer}  # old files list them as inputs, too
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim  # the `dim_value` of a dynamic one is 0
        if len(dims) > 1:  # a vector has no batch dimension
            dims[0].dim_value = 1
        if size_wh and len(dims) == 4:  # (N, channels, H, W)
            width, height = size_wh
            for dim, size in zip(dims[2:], (height, width), strict=True):
                dim.dim_value = dim.dim_value if dim.dim_value > 0 else size
        if any(dim.dim_value <= 0 for dim in dims):
            raise InputError(f"model '{path}': input '{value.name}' has a dynamic size: export it with a fixed size")
