"""BatchNorm folding: equal outputs where folding is possible, no change where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir

from edgekit.export.passes.folding import fold_batchnorm
from tests.examples import examples


def conv_and_norm(
    inputs: int = 4, outputs: int = 6, groups: int = 1, bias: bool = True, epsilon: float = 1e-5, seed: int = 0
) -> onnx.ModelProto:
    random = np.random.default_rng(seed)
    tensors = {
        "weight": random.normal(size=(outputs, inputs // groups, 3, 3)),
        "bias": random.normal(size=outputs),
        "scale": random.normal(size=outputs),
        "shift": random.normal(size=outputs),
        "mean": random.normal(size=outputs),
        "variance": random.uniform(0.01, 3, outputs),
    }
    if not bias:
        del tensors["bias"]
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"][: 3 if bias else 2], ["c"], group=groups, pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"], epsilon=epsilon),
    ]
    return graph_of(nodes, tensors, ["y"], inputs)


def graph_of(
    nodes: Sequence[onnx.NodeProto], tensors: dict[str, np.ndarray], outputs: Sequence[str], channels: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 5, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None, None, None]) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def folded(model: onnx.ModelProto) -> tuple[int, onnx.ModelProto]:
    graph = ir.from_proto(model)
    count = fold_batchnorm(graph)
    result = ir.to_proto(graph)
    assert [value.name for value in result.graph.output] == [value.name for value in model.graph.output]
    onnx.checker.check_model(result, full_check=True)
    return count, result


def outputs_of(model: onnx.ModelProto, channels: int) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    image = np.random.default_rng(9).normal(size=(2, channels, 5, 5)).astype(np.float32)
    return list(session.run(None, {"x": image}))


@settings(max_examples=examples(30), deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    width=st.integers(1, 3),
    bias=st.booleans(),
    epsilon=st.sampled_from([1e-5, 1e-3, 0.1]),
    seed=st.integers(0, 1000),
)
def test_a_folded_convolution_gives_the_same_answers(
    groups: int, width: int, bias: bool, epsilon: float, seed: int
) -> None:
    model = conv_and_norm(groups * width, groups * 2, groups, bias, epsilon, seed)
    count, result = folded(model)
    assert count == 1
    assert [node.op_type for node in result.graph.node] == ["Conv"]
    before, after = (outputs_of(each, groups * width)[0] for each in (model, result))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_a_convolution_that_something_else_reads_stays() -> None:
    model = conv_and_norm()
    model.graph.node.append(helper.make_node("Relu", ["c"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", None, None, None]))
    count, result = folded(model)
    assert (count, len(result.graph.node)) == (0, 3)


def test_a_convolution_that_is_an_output_itself_stays() -> None:
    model = conv_and_norm()
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", None, None, None]))
    assert folded(model)[0] == 0


@pytest.mark.parametrize("position", [1, 2])
def test_a_convolution_whose_weights_are_fed_stays(position: int) -> None:
    model = conv_and_norm()
    name = model.graph.node[0].input[position]
    tensor = next(each for each in model.graph.initializer if each.name == name)
    model.graph.initializer.remove(tensor)
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(tensor.dims)))
    assert folded(model)[0] == 0


def test_a_normalisation_of_the_input_stays() -> None:
    model = conv_and_norm(4, 4)
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    assert folded(model)[0] == 0


def test_two_convolutions_that_share_a_weight_each_get_their_own() -> None:
    model = conv_and_norm()
    random = np.random.default_rng(5)
    for name in ("scale", "shift", "mean"):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=6).astype(np.float32), f"{name}2"))
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["x", "weight", "bias"], ["c2"], pads=[1] * 4),
            helper.make_node("BatchNormalization", ["c2", "scale2", "shift2", "mean2", "variance"], ["y2"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, ["n", None, None, None]))
    count, result = folded(model)
    assert count == 2
    for before, after in zip(outputs_of(model, 4), outputs_of(result, 4), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
