"""Rewrite fold-batchnorm: a BatchNorm behind a convolution becomes part of the convolution's weights."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edgekit.export.onnx.passes.editing import add_weight, constant, convolution, insert, is_read_once, replace

_DEFAULT_EPSILON = 1e-5


def fold_batchnorm(model: ir.Model) -> int:
    """Fold each BatchNormalization behind a Conv into the Conv's weights and return the number folded.

    With g = scale / sqrt(variance + epsilon): weight' = g * weight and bias' = g * (bias - mean) + shift, computed in
    float64 and rounded once. A BatchNormalization is not folded if another node reads the convolution's output, or if
    one of these tensors is not constant.
    """
    return sum(_fold(model.graph, node) for node in list(model.graph) if node.op_type == "BatchNormalization")


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    convolved = norm.inputs[0]
    conv = convolution(convolved.producer()) if convolved is not None and is_read_once(convolved) else None
    constants = [values for values in map(constant, norm.inputs[1:5]) if values is not None]
    if conv is None or len(constants) != 4 or len(norm.outputs) != 1:
        return False
    scale, shift, mean, variance = constants
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else _DEFAULT_EPSILON
    gain = scale / np.sqrt(variance + epsilon)
    weight = conv.weight * gain.reshape(-1, *[1] * (conv.weight.ndim - 1))
    name = norm.outputs[0].name
    # New initialisers: another convolution may share the old ones.
    tensors = [
        add_weight(graph, f"{name}.weight", weight),
        add_weight(graph, f"{name}.bias", gain * (conv.bias - mean) + shift),
    ]
    inputs = [conv.node.inputs[0], *tensors]
    replace(norm, insert(norm, "Conv", inputs, conv.node.attributes, like=conv.node))
    graph.remove([conv.node], safe=True)
    return True
