"""A valid model of a few bytes: the mean of each colour of an 8 x 8 crop is the logit of a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.contract import METADATA_KEY, Contract, CropSpec, InputSpec, OutputSpec

if TYPE_CHECKING:
    import onnx

# The graph in ncnn's format.
NCNN_GRAPH = "7767517\n2 2\nInput in0 0 1 in0\nPooling mean 1 1 in0 out0 0=1 4=1\n"


def tiny_contract(input_name: str = "input", output_name: str = "logits") -> Contract:
    """Return the model's contract; files for ncnn have other names for input and output."""
    size_hw = (8, 8)
    return Contract(
        architecture="mean",
        labels=("red", "green", "blue"),
        input=InputSpec(input_name, size_hw, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        crop=CropSpec(margin=0.0, grayscale=False, resize_hw=size_hw, center_crop_hw=size_hw),
        output=OutputSpec(output_name),
    )


def tiny_onnx(contract: Contract) -> onnx.ModelProto:
    """Return the model with a contract."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["logits"]),
        ],
        "mean",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return model
