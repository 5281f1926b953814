"""BatchNorm folding: a normalisation behind a convolution becomes part of its weights."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edgekit.export.passes.editing import add_weight, constant

_DEFAULT_EPSILON = 1e-5


def fold_batchnorm(model: ir.Model) -> int:
    """Fold every BatchNormalization behind a Conv into that Conv's weights and return how many were folded.

    With g = scale / sqrt(variance + epsilon): weight' = g * weight and bias' = g * (bias - mean) + shift, computed in
    float64 and rounded once. A normalisation stays where something else reads the convolution's output, or where a
    tensor involved is not constant.
    """
    return sum(_fold(model.graph, node) for node in list(model.graph) if node.op_type == "BatchNormalization")


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    convolved = norm.inputs[0]
    conv = convolved.producer() if convolved else None
    if convolved is None or conv is None or conv.op_type != "Conv":
        return False
    if convolved.is_graph_output() or len(convolved.uses()) != 1 or len(norm.outputs) != 1:
        return False
    constants = [constant(value) for value in (conv.inputs[1], *norm.inputs[1:5])]
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] else np.zeros(1)
    if bias is None or any(value is None for value in constants):
        return False
    weight, scale, shift, mean, variance = (value for value in constants if value is not None)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else _DEFAULT_EPSILON
    gain = scale / np.sqrt(variance + epsilon)
    folded_weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    folded_bias = gain * (bias - mean) + shift
    # New tensors, not changed ones: another convolution may share the old.
    stem = norm.outputs[0].name
    tensors = [add_weight(graph, f"{stem}.weight", folded_weight), add_weight(graph, f"{stem}.bias", folded_bias)]
    folded = ir.node("Conv", [conv.inputs[0], *tensors], attributes=dict(conv.attributes), num_outputs=1)
    folded.metadata_props.update(conv.metadata_props)
    replaced, output = norm.outputs[0], folded.outputs[0]
    output.name, output.type, output.shape = replaced.name, replaced.type, replaced.shape
    graph.insert_before(norm, folded)
    ir.convenience.replace_all_uses_with(replaced, output, replace_graph_outputs=True)
    graph.remove([norm, conv], safe=True)
    return True
