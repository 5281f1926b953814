"""Bytes moved between cache and memory equal counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.export.onnx.exported import Exported
from edgekit.export.profiling.cost import graph_cost
from edgekit.export.profiling.traffic import memory_bytes


def chain(kinds: list[str]) -> onnx.ModelProto:
    """Return a 1x1 convolution over 4 channels of 8x8 (1024 bytes per tensor, 64 of weights) and nodes of `kinds`."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["t0"])]
    for index, kind in enumerate(kinds):
        output = "y" if index == len(kinds) - 1 else f"t{index + 1}"
        inputs = [f"t{index}", "x"] if kind == "Add" else [f"t{index}"]
        nodes.append(helper.make_node(kind, inputs, [output]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_without_cache_and_fusing_it_is_what_the_counter_counts(exported: Exported) -> None:
    model = onnx.load(exported.path)
    assert memory_bytes(model, 0, fuse_activations=False) == tuple(layer.moved_bytes for layer in exported.cost.layers)


def test_an_activation_behind_a_convolution_moves_nothing() -> None:
    assert memory_bytes(chain(["Relu"]), 0) == (1024 + 64 + 1024, 0)
    assert memory_bytes(chain(["Relu"]), 0, fuse_activations=False) == (1024 + 64 + 1024, 2048)


def test_an_activation_behind_something_else_moves_its_bytes() -> None:
    assert memory_bytes(chain(["Add", "Relu"]), 0) == (2112, 3072, 2048)


def test_swish_of_two_nodes_is_one_activation() -> None:
    model = chain(["Relu"])
    del model.graph.node[1]
    model.graph.node.append(helper.make_node("Sigmoid", ["t0"], ["gate"]))
    model.graph.node.append(helper.make_node("Mul", ["t0", "gate"], ["y"]))
    assert memory_bytes(model, 0) == (2112, 0, 0)


@pytest.mark.parametrize(
    ("cache", "moved"),
    [
        (0, (2112, 3072)),
        # One tensor fits. The convolution reads x and the weights, which evict x; its result evicts the weights. The
        # addition finds this result in the cache and reads x again. A result that is not read again is not written.
        (1024, (1024 + 64, 1024)),
        # The weights stay in the cache; the second inference reads another input image.
        (100_000, (1024, 0)),
    ],
)
def test_a_cache_keeps_what_was_used_last(cache: int, moved: tuple[int, int]) -> None:
    assert memory_bytes(chain(["Add"]), cache) == moved


def test_more_cache_never_moves_more(exported: Exported) -> None:
    model = onnx.load(exported.path)
    sizes_kib = (0, 16, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096)
    totals = {size: sum(count or 0 for count in memory_bytes(model, size << 10)) for size in sizes_kib}
    assert list(totals.values()) == sorted(totals.values(), reverse=True)
    assert totals[4096] == 4 * 44 * 44 * 3  # the input image alone
    # The weights do not stay in a cache of 512 KiB: each is read once per inference.
    assert totals[512] >= graph_cost(model).weight_bytes  # type: ignore[operator]


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
    moved = memory_bytes(model, 0, fuse_activations=False)
    # The input is converted to bytes once; the convolution reads bytes, weights included, and writes bytes.
    assert moved == (1024 + 256 + 5, 0, 0, 256 + 16 + 256, 0, 0)


def test_unknown_shapes_give_no_figure(yunet: Path) -> None:
    assert None in memory_bytes(onnx.load(yunet), 1 << 19)
