"""Bytes moved equal counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.export.onnx.exported import Exported
from edgekit.export.profiling.traffic import moved_bytes


def test_without_quantisation_it_is_what_the_counter_counts(exported: Exported) -> None:
    model = onnx.load(exported.path)
    assert moved_bytes(model) == tuple(layer.moved_bytes for layer in exported.cost.layers)


def test_quantisation_is_part_of_its_neighbours() -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(0), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        helper.make_node("Conv", ["xf", "wf"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.uint8), "w"), scale, zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    moved = moved_bytes(model)
    # The input is converted to bytes once; the convolution reads bytes, weights included, and writes bytes.
    assert moved == (1024 + 256 + 5, 0, 0, 256 + 16 + 256, 0, 0)


def test_unknown_shapes_give_no_figure(yunet: Path) -> None:
    assert None in moved_bytes(onnx.load(yunet))
