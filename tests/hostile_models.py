"""ONNX models that need endless time, much time or much memory, or that break their contracts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.contract import METADATA_KEY
from tests.edgekit.onnx_faults import good_model

_POOL_PX = 2_000


def with_document(model: Path, target: Path, document: str | None) -> Path:
    """Write `model` with another contract document, or without one."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    if document is not None:
        helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.save(proto, target)
    return target


def endless_loop(collects: bool = False) -> onnx.ModelProto:
    """Return a model that loops endlessly on an image that is not black; with `collects` its memory grows, too."""
    info = helper.make_tensor_value_info
    inputs = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["x"], ["x_on"])]
    outputs = [info("go_on", TensorProto.BOOL, []), info("x_on", TensorProto.FLOAT, None)]
    if collects:
        nodes.append(helper.make_node("Identity", ["x"], ["kept"]))
        outputs.append(info("kept", TensorProto.FLOAT, None))
    body = helper.make_graph(nodes, "body", inputs, outputs)
    loop = helper.make_node(
        "Loop", ["trips", "yes", "input"], ["looped", *(["all_kept"] if collects else [])], body=body
    )
    constants = {"many": np.array(1 << 62, np.float32), "yes": np.array(True)}
    return _before_first_layer([*_scaled_brightness("many", "trips"), loop], constants, "looped")


def slow_pool() -> onnx.ModelProto:
    """Return a model that computes for hours inside one operator on an image that is not black."""
    nodes = [
        *_scaled_brightness("many", "more"),
        helper.make_node("Add", ["more", "side"], ["long"]),
        helper.make_node("Concat", ["ones", "long", "long"], ["size"], axis=0),
        helper.make_node("ReduceMean", ["input"], ["scalar"], keepdims=0),
        helper.make_node("Expand", ["scalar", "size"], ["large"]),
        helper.make_node("MaxPool", ["large"], ["pooled"], kernel_shape=[_POOL_PX, _POOL_PX]),
        helper.make_node("ReduceMean", ["pooled"], ["small"], keepdims=0),
        helper.make_node("Add", ["input", "small"], ["added"]),
    ]
    # An output of 16 million values, each the largest of 4 million.
    constants = {"many": np.array(4_000, np.float32), "side": np.array([_POOL_PX]), "ones": np.array([1, 1])}
    return _before_first_layer(nodes, constants, "added")


def slow_to_load(side: int = 2_000, products: int = 2_000) -> onnx.ModelProto:
    """Return a model with constant matrix products, which ONNX Runtime computes while it loads the file."""
    nodes, previous = [], "w"
    for number in range(products):
        nodes.append(helper.make_node("MatMul", [previous, "w"], [f"product{number}"]))
        previous = f"product{number}"
    nodes += [
        helper.make_node("ReduceMean", [previous], ["small"], keepdims=0),
        helper.make_node("Add", ["input", "small"], ["added"]),
    ]
    return _before_first_layer(nodes, {"w": np.full((side, side), 1 / side, np.float32)}, "added")


def huge_constant(size_bytes: int) -> onnx.ModelProto:
    """Return a model of a few bytes that fills a tensor of `size_bytes`."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["small"], keepdims=0),
        helper.make_node("Add", ["input", "small"], ["added"]),
    ]
    return _before_first_layer(nodes, {"size": np.array([size_bytes // 4])}, "added")


def one_row() -> onnx.ModelProto:
    """Return a model that returns the mean of all its images as one row."""
    model = good_model()
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    return model


def _scaled_brightness(factor: str, output: str) -> list[onnx.NodeProto]:
    """Return nodes that compute the largest pixel, 0 to 1, times a constant, as a whole number."""
    return [
        helper.make_node("ReduceMax", ["input"], [f"{output}_max"], keepdims=0),
        helper.make_node("Mul", [f"{output}_max", factor], [f"{output}_product"]),
        helper.make_node("Cast", [f"{output}_product"], [output], to=TensorProto.INT64),
    ]


def _before_first_layer(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str) -> onnx.ModelProto:
    model = good_model()
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node[0].input[0] = output
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    return model
