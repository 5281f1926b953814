"""The checksum of a graph's structure does not depend on its weights."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Hash = Callable[[onnx.ModelProto], str]


@pytest.fixture
def graph_sha256(load: Callable[[str], ModuleType]) -> Hash:
    found: Hash = load("structure").graph_sha256
    return found


def model(weight: float = 1.0, shape: tuple[int, int] = (4, 2), maker: str = "", raw: bool = True) -> onnx.ModelProto:
    values = np.full((4, 2), weight, np.float32)
    tensor = numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", 1, (4, 2), values.ravel())
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array(shape))),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        maker or "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor],
    )
    result = helper.make_model(graph, producer_name=maker)
    helper.set_model_props(result, {"maker": maker})
    return result


def test_weights_and_makers_do_not_change_the_structure(graph_sha256: Hash) -> None:
    same = {graph_sha256(other) for other in (model(), model(2.0), model(maker="someone"), model(raw=False))}
    assert len(same) == 1


def test_shapes_do(graph_sha256: Hash) -> None:
    assert graph_sha256(model()) != graph_sha256(model(shape=(2, 4)))
