"""A small valid ONNX classifier, and damaged and hostile variants of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.contract import METADATA_KEY, Contract, CropSpec, InputSpec, OutputSpec
from tests.fuzz.mutate import mutated

_HUGE = (1 << 20, 1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)
_SIDE_PX = 12


def good_model() -> onnx.ModelProto:
    """Return a small classifier with a contract."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w0", "b0"], ["c0"], name="stem", pads=[1] * 4, kernel_shape=[3, 3]),
        node("Relu", ["c0"], ["r0"], name="relu"),
        node("GlobalAveragePool", ["r0"], ["g"], name="mean"),
        node("Reshape", ["g", "shape"], ["f"], name="flat"),
        node("Gemm", ["f", "w2", "b2"], ["logits"], name="head", transB=1),
    ]
    tensors = [
        weight("w0", 8, 3, 3, 3),
        weight("b0", 8),
        weight("w2", 3, 8),
        weight("b2", 3),
        numpy_helper.from_array(np.array([-1, 8], np.int64), "shape"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, _SIDE_PX, _SIDE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    size_hw = (_SIDE_PX, _SIDE_PX)
    contract = Contract(
        "small",
        ("red", "green", "blue"),
        InputSpec("input", size_hw, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        CropSpec(0.0, False, size_hw, size_hw),
        OutputSpec("logits"),
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return model


def _huge_weight(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    if tensor.dims:
        tensor.dims[choice.randrange(len(tensor.dims))] = choice.choice((*_HUGE, -1, 0))


def _other_type(model: onnx.ModelProto, choice: random.Random) -> None:
    choice.choice(model.graph.initializer).data_type = choice.choice([0, 2, 3, 7, 8, 10, 11, 14, 16, 17, 22, 99])


def _short_weight(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    tensor.raw_data = tensor.raw_data[: choice.randrange(len(tensor.raw_data))]


def _outside(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = choice.choice(
        ["/etc/passwd", "../../../../etc/passwd", "beside.bin", "", "/dev/zero", "/proc/self/mem", "."]
    )
    for key, value in (
        ("location", place),
        ("offset", str(choice.choice([0, -1, 1 << 62]))),
        ("length", str(choice.choice([1, *_HUGE]))),
    ):
        tensor.external_data.add(key=key, value=value)


def _other_attribute(model: onnx.ModelProto, choice: random.Random) -> None:
    node = choice.choice([node for node in model.graph.node if node.attribute])
    attribute = choice.choice(node.attribute)
    value = choice.choice([0, -1, 1 << 20, 1 << 40, (1 << 63) - 1])
    if attribute.ints and choice.random() < 0.7:
        attribute.ints[choice.randrange(len(attribute.ints))] = value
    elif choice.random() < 0.5:
        attribute.i = value
    else:
        attribute.type = choice.choice([1, 2, 3, 4, 6, 7, 8])


def _other_input(model: onnx.ModelProto, choice: random.Random) -> None:
    value = choice.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if choice.random() < 0.2:
        value.type.tensor_type.elem_type = choice.choice([0, 2, 7, 8, 10, 99])
    elif choice.random() < 0.2:
        del dims[choice.randrange(len(dims)) :]
    else:
        dims[choice.randrange(len(dims))].dim_value = choice.choice((*_HUGE, 0, -1, 2))


def _grown(model: onnx.ModelProto, choice: random.Random) -> None:
    """Insert a node that needs a few bytes in the file and gigabytes or more for its output."""
    size = choice.choice(_HUGE)
    sizes = {"Tile": [1, 1, size, size], "Expand": [size, 3, _SIDE_PX, _SIDE_PX], "ConstantOfShape": [size, size]}
    kind = choice.choice(list(sizes))
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes[kind], np.int64), "size"))
    inputs = ["size"] if kind == "ConstantOfShape" else ["input", "size"]
    model.graph.node.insert(0, helper.make_node(kind, inputs, ["grown"]))
    if choice.random() < 0.5:
        model.graph.node[1].input[0] = "grown"


def let_grow(model: onnx.ModelProto, size_bytes: int) -> None:
    """Give the first convolution an input of `size_bytes`."""
    batch = size_bytes // (4 * 3 * _SIDE_PX * _SIDE_PX)
    model.graph.initializer.append(numpy_helper.from_array(np.array([batch, 1, 1, 1], np.int64), "size"))
    model.graph.node.insert(0, helper.make_node("Expand", ["input", "size"], ["grown"]))
    model.graph.node[1].input[0] = "grown"


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _huge_weight,
    _other_type,
    _short_weight,
    _outside,
    _other_attribute,
    _other_input,
    _grown,
)


def changed(choice: random.Random) -> bytes:
    """Return the bytes of a damaged file."""
    model = good_model()
    if choice.random() < 0.25:
        return mutated(model.SerializeToString(), choice)
    for _ in range(choice.choice([1, 1, 2])):
        choice.choice(CHANGES)(model, choice)
    return model.SerializeToString()


def with_document(model: Path, target: Path, document: str | None) -> Path:
    """Write `model` with another contract document, or without one."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    if document is not None:
        helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.save(proto, target)
    return target


def one_row() -> onnx.ModelProto:
    """Return a model that returns the mean of all its images as one row."""
    model = good_model()
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    return model
