"""Rewrites of every export: BatchNorm and the class vectors of a student become part of the weights."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edgekit.export.passes.editing import Weights, add_weight, constant, convolution, insert, is_read_once, replace

_DEFAULT_EPSILON = 1e-5
# Operators that compute the second factor of the MatMul from a student's class vectors.
_FOLDED_OPERATORS = frozenset({"Mul", "Transpose"})


def fold_batchnorm(model: ir.Model) -> int:
    """Fold each BatchNormalization behind a Conv into the Conv's weights and return the number folded.

    With g = scale / sqrt(variance + epsilon): weight' = g * weight and bias' = g * (bias - mean) + shift, computed in
    float64 and rounded once. A BatchNormalization is not folded if another node reads the convolution's output, or if
    one of these tensors is not constant.
    """
    nodes = list(model.graph)  # all of them, before folding changes the graph
    return sum(_fold(model.graph, node) for node in nodes if node.op_type == "BatchNormalization")


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    """Fold one BatchNormalization node, see `fold_batchnorm`; return False if it cannot be folded."""
    convolved = norm.inputs[0]
    # Another reader would need the output of the convolution without the norm.
    if convolved is None or not is_read_once(convolved):
        return False
    conv = convolution(convolved.producer())
    constants = [values for values in map(constant, norm.inputs[1:5]) if values is not None]
    # A norm in training mode also outputs the running mean and variance.
    if conv is None or len(constants) != 4 or len(norm.outputs) != 1:
        return False
    scale, shift, mean, variance = constants  # (out,)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else _DEFAULT_EPSILON
    gain = scale / np.sqrt(variance + epsilon)
    weight = conv.weight * gain.reshape(-1, *[1] * (conv.weight.ndim - 1))  # (out, in, height, width) * (out, 1, 1, 1)
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


def fold_class_vectors(model: ir.Model) -> None:
    """Replace constant expressions in the second factor of MatMul nodes by their value.

    A student's logits are `embedding @ (scale * class_vectors).T`; the transposed product is computed in float64 and
    rounded once.
    """
    for node in [node for node in model.graph if _has_computed_factor(node)]:
        weights = _evaluated(node.inputs[1])
        if weights is not None:
            node.replace_input_with(1, add_weight(model.graph, f"{node.outputs[0].name}.weight", weights))


def _has_computed_factor(node: ir.Node) -> bool:
    """Return whether a node is a MatMul whose second factor is the output of a Mul or Transpose."""
    factor = node.inputs[1] if node.op_type == "MatMul" else None
    producer = factor.producer() if factor is not None else None
    return producer is not None and producer.op_type in _FOLDED_OPERATORS


def _evaluated(value: ir.Value | None) -> Weights | None:
    """Compute an expression of constants, Mul and Transpose recursively; None if it depends on anything else."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _FOLDED_OPERATORS:
        return constant(value)  # None for what is not a constant
    operands = [operand for operand in map(_evaluated, node.inputs) if operand is not None]
    if len(operands) != len(node.inputs):
        return None
    if node.op_type == "Mul":
        return operands[0] * operands[1]
    permutation = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
    return np.transpose(operands[0], permutation)
