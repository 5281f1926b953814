"""Rewrite fold-class-vectors: class vectors and logit scale of a student become one constant matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnxscript import ir

from edgekit.export.onnx.passes.editing import Weights, add_weight, constant

_KINDS = frozenset({"Mul", "Transpose"})


def fold_class_vectors(model: ir.Model) -> int:
    """Replace constant expressions in the second factor of MatMul nodes by their value and return the number replaced.

    A student's logits are `embedding @ (scale * class_vectors).T`; the transposed product is computed in float64 and
    rounded once.
    """
    count = 0
    for node in [node for node in model.graph if _is_computed(node)]:
        weights = _evaluated(node.inputs[1])
        if weights is not None:
            node.replace_input_with(1, add_weight(model.graph, f"{node.outputs[0].name}.weight", weights))
            count += 1
    return count


def class_vector_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the nodes that `fold_class_vectors` would remove."""
    for node in model.graph:
        if _is_computed(node) and _evaluated(node.inputs[1]) is not None:
            yield from _nodes(node.inputs[1])


def _is_computed(node: ir.Node) -> bool:
    factor = node.inputs[1] if node.op_type == "MatMul" else None
    producer = factor.producer() if factor is not None else None
    return producer is not None and producer.op_type in _KINDS


def _nodes(value: ir.Value | None) -> Iterator[ir.Node]:
    node = value.producer() if value is not None else None
    if node is not None and node.op_type in _KINDS:
        yield node
        for part in node.inputs:
            yield from _nodes(part)


def _evaluated(value: ir.Value | None) -> Weights | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _KINDS:
        return constant(value)
    parts = [_evaluated(part) for part in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    if node.op_type == "Mul":
        return known[0] * known[1]
    return np.transpose(known[0], node.attributes["perm"].as_ints() if "perm" in node.attributes else None)
