"""Rewrite uint8-input: input scaling moves into the first convolution, and the file takes uint8 pixels."""

from __future__ import annotations

from dataclasses import replace as with_fields

import numpy as np
from onnxscript import ir

from edgekit.contract import Contract
from edgekit.export.onnx.passes.editing import Convolution, add_constant, convolution, insert, replace, reweighted


def uint8_input(model: ir.Model, contract: Contract) -> tuple[int, Contract]:
    """Fold `(pixel * scale - mean) / std` into the first convolution's weights, behind a Cast of uint8 pixels.

    weight'_c = weight_c scale / std_c and bias' = bias - sum weight_c mean_c / std_c. Zero padding of the scaled image
    equals padding of the pixels by mean / scale: if the convolution pads, a Pad node pads the pixels, which requires
    the same mean for all channels.

    Returns:
        The number of convolutions changed and the contract with "uint8" input; 0 and the same contract if the input
        has readers other than one convolution, or if the convolution pads and the channels' means differ.
    """
    image, spec = model.graph.inputs[0], contract.input
    uses = [use.node for use in image.uses()]
    conv = convolution(uses[0]) if len(uses) == 1 else None
    if spec.element_type == "uint8" or conv is None or conv.groups != 1:
        return 0, contract
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    if any(conv.pads) and len(set(spec.mean)) > 1:
        return 0, contract
    pixels = insert(conv.node, "Cast", [image], {"to": ir.DataType.FLOAT.value})
    pads = conv.pads
    if any(pads) and mean[0] != 0:
        pixels, pads = _padded(conv, pixels, mean[0] / spec.scale), (0,) * len(pads)
    weight = conv.weight * (spec.scale / std).reshape(1, -1, *[1] * (conv.weight.ndim - 2))
    bias = conv.bias - np.einsum("oc...,c->o...", conv.weight, mean / std).reshape(len(weight), -1).sum(axis=1)
    replace(conv.node, reweighted(conv, weight, bias, pixels, pads=list(pads)))
    image.type = ir.TensorType(ir.DataType.UINT8)
    return 1, with_fields(contract, input=with_fields(spec, element_type="uint8"))


def _padded(conv: Convolution, pixels: ir.Value, value: float) -> ir.Value:
    graph, half = conv.node.graph, len(conv.pads) // 2
    assert isinstance(graph, ir.Graph)
    amounts = np.array([0, 0, *conv.pads[:half], 0, 0, *conv.pads[half:]], np.int64)
    name = conv.node.outputs[0].name
    inputs = [
        pixels,
        add_constant(graph, f"{name}.pads", amounts),
        add_constant(graph, f"{name}.mean", np.array(value, np.float32)),
    ]
    return insert(conv.node, "Pad", inputs, {"mode": "constant"})
