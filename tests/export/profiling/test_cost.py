"""The cost of a graph equals the table of the published net and counts by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekit.errors import InputError
from edgekit.export.profiling.cost import GraphCost, graph_cost, load_graph
from edgekit.export.to_onnx import Exported
from edgekit.models.nets.registry import parameter_count
from tests.toy_yunet import MACS_PER_PX

Dims = Sequence[int | str | None]
# Parameters, multiply-accumulates and output shape of each convolution and of the classifier of the authors' net.
FIGURES = Path(__file__).parents[2] / "fixtures/golden/edgecnn.json"


def graph_of(
    nodes: Sequence[onnx.NodeProto], inputs: dict[str, Dims], weights: dict[str, Any], outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    tensors = [
        numpy_helper.from_array(value if isinstance(value, np.ndarray) else np.zeros(value, np.float32), name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def cost_of(op_type: str, inputs: dict[str, Dims], weights: dict[str, Any], **attributes: Any) -> GraphCost:
    node = helper.make_node(op_type, [*inputs, *weights], ["y"], **attributes)
    return graph_cost(graph_of([node], inputs, weights))


def test_the_published_net_has_the_cost_of_the_paper(exported: Exported, edgecnn: nn.Module) -> None:
    assert exported.cost.macs == 48_827_432
    assert parameter_count(edgecnn) == exported.net_parameters == 418_487
    # Of scale, shift and bias, folding leaves one value per channel, in 15 layers of 32 + 8 channels.
    assert exported.cost.parameters == 418_487 - 2 * 15 * (32 + 8)


def test_every_layer_has_the_cost_of_the_published_table(exported: Exported) -> None:
    expected = json.loads(FIGURES.read_text())["layers"]
    counted = [layer for layer in exported.cost.layers if layer.macs]
    shapes = [list(layer.output_shape or ())[1:] for layer in counted]
    found = [[layer.parameters, layer.macs, shape] for layer, shape in zip(counted, shapes, strict=True)]
    assert found == expected


@pytest.mark.parametrize(
    ("image", "weight", "attributes", "macs"),
    [
        ([1, 3, 8, 8], [16, 3, 3, 3], {"pads": [1] * 4}, 16 * 64 * 27),
        ([1, 3, 8, 8], [16, 3, 3, 3], {"pads": [1] * 4, "strides": [2, 2]}, 16 * 16 * 27),
        ([1, 8, 8, 8], [16, 2, 3, 3], {"pads": [1] * 4, "group": 4}, 16 * 64 * 18),
        ([1, 3, 9, 9], [4, 3, 3, 3], {"dilations": [2, 2]}, 4 * 25 * 27),
        ([1, 3, 9, 9], [4, 3, 1, 5], {"pads": [0, 2, 0, 2]}, 4 * 81 * 15),
    ],
)
def test_convolutions_by_hand(image: Dims, weight: list[int], attributes: dict[str, Any], macs: int) -> None:
    cost = cost_of("Conv", {"x": image}, {"w": weight, "b": weight[:1]}, **attributes)
    assert cost.macs == macs
    assert cost.parameters == np.prod(weight) + weight[0]


@pytest.mark.parametrize("free", ["batch", None, 16])
def test_a_batch_of_one_is_counted_whatever_the_file_states(free: str | int | None) -> None:
    assert cost_of("Conv", {"x": [free, 3, 8, 8]}, {"w": [16, 3, 3, 3]}).macs == 16 * 36 * 27


@pytest.mark.parametrize(("weight", "attributes"), [([152, 7], {}), ([7, 152], {"transB": 1})])
def test_fully_connected_layers_by_hand(weight: list[int], attributes: dict[str, Any]) -> None:
    cost = cost_of("Gemm", {"x": [1, 152]}, {"w": weight, "b": [7]}, **attributes)
    assert (cost.macs, cost.parameters) == (1064, 1071)


@pytest.mark.parametrize(
    ("image", "weight", "macs"),
    [([1, 10, 20], [20, 5], 1000), ([1, 4, 10, 20], [4, 20, 5], 4000), ([1, 20], [20], 20)],
)
def test_matrix_products_by_hand(image: Dims, weight: list[int], macs: int) -> None:
    assert cost_of("MatMul", {"x": image}, {"w": weight}).macs == macs


def test_a_shared_weight_counts_once_and_its_work_twice() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="second"),
    ]
    cost = graph_cost(graph_of(nodes, {"x": [1, 10]}, {"w": [10, 10]}))
    assert (cost.parameters, cost.macs) == (100, 200)
    assert [(layer.name, layer.parameters) for layer in cost.layers] == [("first", 100), ("second", 0)]


def test_free_shapes_give_no_figure_instead_of_a_wrong_one() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="free"),
        helper.make_node("Relu", ["h"], ["y"], name="relu"),
    ]
    cost = graph_cost(graph_of(nodes, {"x": ["n", 3, "height", "width"]}, {"w": [16, 3, 3, 3]}))
    assert cost.macs is None
    assert [layer.macs for layer in cost.layers] == [None, 0]
    assert cost.layers[0].output_shape == (1, 16, None, None)
    assert cost.parameters == 432
    assert (cost.weight_bytes, cost.read_bytes, cost.moved_bytes) == (4 * 432, None, None)


def test_work_that_is_not_counted_is_named() -> None:
    cost = cost_of("ConvTranspose", {"x": [1, 3, 8, 8]}, {"w": [3, 4, 2, 2]})
    assert (cost.macs, cost.uncounted) == (0, ("ConvTranspose",))


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n"])
def test_what_is_no_onnx_file_is_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model '.*model.onnx' is not an ONNX file"):
        load_graph(path)


def small_graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Add", ["h", "r"], ["a"], name="add"),
        helper.make_node("Flatten", ["a"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    return graph_of(nodes, {"x": ["n", 2, 4, 4]}, {"w": [3, 2, 3, 3], "b": [3], "v": [48, 5]})


def test_bytes_moved_by_hand() -> None:
    cost = graph_cost(small_graph())
    moved = {layer.name: (layer.weight_bytes, layer.read_bytes, layer.written_bytes) for layer in cost.layers}
    assert moved == {
        "conv": (4 * (54 + 3), 4 * 32, 4 * 48),
        "relu": (0, 4 * 48, 4 * 48),
        "add": (0, 4 * 96, 4 * 48),
        "flatten": (0, 0, 0),
        "gemm": (4 * 240, 4 * 48, 4 * 5),
    }
    assert (cost.weight_bytes, cost.read_bytes, cost.written_bytes, cost.moved_bytes) == (1188, 896, 596, 2680)
    # The convolution and the fully connected layer, two operations per multiply-accumulate.


def test_quantisation_is_part_of_its_neighbours() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        helper.make_node("Conv", ["xf", "wf"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    weights = {"w": np.ones((4, 4, 1, 1), np.uint8), "s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    moved = [layer.moved_bytes for layer in graph_cost(graph_of(nodes, {"x": ["n", 4, 8, 8]}, weights)).layers]
    # The input is converted to bytes once; the convolution reads bytes, weights included, and writes bytes.
    assert moved == [1024 + 256 + 5, 0, 0, 256 + 16 + 256, 0, 0]


def test_bytes_the_published_net_moves(exported: Exported) -> None:
    cost = exported.cost
    assert cost.weight_bytes == 4 * 417_287
    # Values: stem and its pool, three blocks and the transitions between them (484, 121, 25 positions), the head.
    written = 32 * (1936 + 484) + 496 * 484 + 64 * 121 + 624 * 121 + 96 * 25 + 1400 * 25 + 152 * 26 + 7
    read = 3 * 1936 + 32 * 1936 + (640 + 64) * 484 + (896 + 96) * 121 + 2184 * 25 + 152 * 51
    assert (cost.read_bytes, cost.written_bytes) == (4 * read, 4 * written) == (2_363_520, 1_768_444)
    assert cost.moved_bytes == 5_801_112


def test_any_onnx_file_will_do(yunet: Path, yunet_640: Path) -> None:
    cost = graph_cost(load_graph(yunet_640))
    assert cost.macs == MACS_PER_PX * 640 * 640
    assert [layer.op_type for layer in cost.layers].count("Conv") == 12
    assert graph_cost(load_graph(yunet)).macs is None
