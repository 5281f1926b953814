"""Append zero channels to a tensor: check that its readers accept more channels, and give the readers zero weights."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnxscript import ir

from edgekit.export.onnx.passes.editing import (
    add_constant,
    add_weight,
    constant,
    convolution,
    integer,
    replace,
    reweighted,
)

# Operators that treat each channel alone and map zeros to zeros.
_CHANNELWISE = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Relu"})


def takes_zeros(value: ir.Value, but_for: Collection[ir.Node] = ()) -> bool:
    """Return whether all readers of `value` can get zero weights for additional channels.

    Args:
        value: A tensor (N, C, ...).
        but_for: Readers that the caller rewrites itself.
    """
    return not value.is_graph_output() and all(
        use.node in but_for or _takes_zeros(use.node, use.idx) for use in value.uses()
    )


def append_zeros(value: ir.Value, channels: int, but_for: Collection[ir.Node] = ()) -> None:
    """Add `channels` zero channels to the shape of `value`, and zero weights for them to all its readers.

    `takes_zeros` must hold for `value`; `but_for` are readers that the caller rewrites itself.
    """
    for use in list(value.uses()):
        node, graph = use.node, use.node.graph
        assert isinstance(graph, ir.Graph)
        if node in but_for:
            continue
        if conv := convolution(node):
            zeros = np.zeros((len(conv.weight), channels, *conv.weight.shape[2:]))
            replace(node, reweighted(conv, np.concatenate([conv.weight, zeros], axis=1), conv.bias))
        elif node.op_type == "Reshape":
            sizes = constant(node.inputs[1])
            assert sizes is not None
            shape = sizes.astype(np.int64)
            shape[1] += channels
            node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}.shape", shape))
            append_zeros(node.outputs[0], channels)
        elif node.op_type == "Gemm":
            weight = constant(node.inputs[1])
            assert weight is not None
            widths = ((0, 0), (0, channels)) if integer(node, "transB", 0) else ((0, channels), (0, 0))
            name = f"{node.outputs[0].name}.weight"
            node.replace_input_with(1, add_weight(graph, name, np.pad(weight, widths)))
        else:
            append_zeros(node.outputs[0], channels)
    assert value.shape is not None
    size = value.shape[1]
    assert isinstance(size, int)
    value.shape = with_channels(value.shape, size + channels)


def with_channels(shape: ir.Shape | None, channels: int) -> ir.Shape | None:
    """Return a shape (N, C, ...) with C replaced by `channels`."""
    return None if shape is None else ir.Shape([shape[0], channels, *shape[2:]])


def _takes_zeros(node: ir.Node, position: int) -> bool:
    if position != 0:
        return False
    if node.op_type == "Conv":
        conv = convolution(node)
        return conv is not None and conv.groups == 1
    if node.op_type == "Gemm":
        return constant(node.inputs[1]) is not None and not integer(node, "transA", 0)
    if node.op_type == "Reshape":
        return _is_flattening(node) and takes_zeros(node.outputs[0])
    return node.op_type in _CHANNELWISE and len(node.outputs) == 1 and takes_zeros(node.outputs[0])


def _is_flattening(node: ir.Node) -> bool:
    """Return whether a Reshape removes dimensions of size 1: (N, C, 1, 1) becomes (N, C)."""
    before, sizes = node.inputs[0], constant(node.inputs[1])
    if before is None or before.shape is None or sizes is None:
        return False
    return len(sizes) == 2 and sizes[1] == before.shape[1] and all(size == 1 for size in before.shape[2:])
