"""Small random nets as ONNX graphs, of the layer kinds that the rewrites support, and their logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from edgekit.export.passes.table import rewritten
from edgekit.preprocess import to_input

CLASSES = 3


@dataclass
class Builder:
    """Builds a graph layer by layer; `value` is its last tensor, with `channels` channels."""

    seed: int
    value: str = "image"
    channels: int = 3
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.tensors)}"
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        self.tensors.append(numpy_helper.from_array((self.random.normal(size=shape) * scale).astype(np.float32), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        self.value = name
        return name

    def conv(self, outputs: int, size: int = 3, pad: int = 1, groups: int = 1, bias: bool = True) -> str:
        weights = [self.weight(outputs, self.channels // groups, size, size)] + ([self.weight(outputs)] if bias else [])
        self.channels = outputs
        return self.node("Conv", [self.value, *weights], pads=[pad] * 4, group=groups, kernel_shape=[size, size])

    def relu(self) -> str:
        return self.node("Relu", [self.value])

    def pool(self, kind: str, size: int = 2, pad: int = 0) -> str:
        shape = {"kernel_shape": [size, size], "strides": [2, 2], "pads": [pad] * 4}
        return self.node(kind, [self.value], **shape)

    def norm(self, epsilon: float = 1e-5) -> str:
        names = [self.weight(self.channels) for _ in range(3)]
        variance = f"w{len(self.tensors)}"
        values = self.random.uniform(0.3, 2, self.channels).astype(np.float32)
        self.tensors.append(numpy_helper.from_array(values, variance))
        return self.node("BatchNormalization", [self.value, *names, variance], epsilon=epsilon)

    def dense(self, growth: int, bottleneck: int = 8, groups: int = 1) -> str:
        before, channels = self.value, self.channels
        self.conv(bottleneck)
        self.relu()
        new = self.conv(growth, groups=groups)
        self.channels = channels + growth
        return self.node("Concat", [before, new], axis=1)

    def head(self) -> None:
        self.relu()
        self.node("GlobalAveragePool", [self.value])
        self.tensors.append(numpy_helper.from_array(np.array([-1, self.channels], np.int64), "flat"))
        self.node("Reshape", [self.value, "flat"])
        self.node("Gemm", [self.value, self.weight(CLASSES, self.channels), self.weight(CLASSES)], transB=1)
        self.nodes[-1].output[0] = "logits"

    def model(self, contract: Contract) -> onnx.ModelProto:
        image = [None, 3, *contract.input.size_hw]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *image[1:]])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def contract_of(
    mean: tuple[float, ...] = (0.0,) * 3,
    std: tuple[float, ...] = (1.0,) * 3,
    gray: bool = True,
    size_px: int = 14,
) -> Contract:
    size_hw = (size_px, size_px)
    return Contract(
        architecture="random",
        labels=tuple("abc"),
        input=InputSpec("image", size_hw, "rgb", 1 / 255, mean, std),
        crop=CropSpec(0.0, gray, size_hw, size_hw),
        output=OutputSpec("logits"),
    )


def logits_of(model: onnx.ModelProto, contract: Contract) -> NDArray[np.float32]:
    channels = 1 if contract.crop.grayscale else 3
    size_hw = contract.input.size_hw
    crops = np.random.default_rng(5).integers(0, 256, (3, *size_hw, channels), np.uint8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    (logits,) = session.run(["logits"], {"image": to_input(crops, contract.input)})
    return np.asarray(logits)


def after(
    model: onnx.ModelProto, contract: Contract, names: Collection[str]
) -> tuple[onnx.ModelProto, Contract, dict[str, int]]:
    """Return the rewritten model, its contract and the counts of changes; check validity and equal logits."""
    graph = ir.from_proto(onnx.ModelProto.FromString(model.SerializeToString()))  # renaming changes the proto
    new_contract, changed = rewritten(graph, contract, names)
    result = ir.to_proto(graph)
    bare = onnx.ModelProto()
    bare.CopyFrom(result)
    del bare.graph.value_info[:]
    onnx.checker.check_model(bare, full_check=True)
    np.testing.assert_allclose(logits_of(bare, new_contract), logits_of(model, contract), atol=1e-4)
    assert replace(new_contract, input=contract.input) == contract
    return bare, new_contract, changed


@st.composite
def random_nets(draw: st.DrawFn) -> tuple[Builder, Contract]:
    """Draw a small net of dense blocks, normalisations and pools, and its contract."""
    net = Builder(draw(st.integers(0, 10_000)))
    equal = draw(st.booleans())
    mean = (0.3,) * 3 if equal else draw(st.sampled_from([(0.0,) * 3, (0.5, 0.4, 0.3)]))
    contract = contract_of(mean, (0.5, 0.4, 0.6), draw(st.booleans()), draw(st.integers(12, 20)))
    net.conv(draw(st.sampled_from([4, 16])), pad=draw(st.integers(0, 1)), bias=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(0, 3))):
            net.dense(draw(st.sampled_from([4, 8])), groups=draw(st.sampled_from([1, 2])))
        layer = draw(st.sampled_from(["AveragePool", "MaxPool", "norm", "relu", "conv", "none"]))
        if layer.endswith("Pool"):
            net.pool(layer)
        elif layer == "norm":
            net.conv(net.channels, groups=draw(st.sampled_from([1, 2])), bias=draw(st.booleans()))
            net.norm(draw(st.sampled_from([1e-5, 0.1])))
        elif layer == "relu":
            net.relu()
        elif layer == "conv":
            net.conv(draw(st.sampled_from([4, 16])), draw(st.sampled_from([1, 3])), 1)
    net.head()
    return net, contract
