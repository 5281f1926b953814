"""Rewrite pack-channels: dense-block layers that append few channels share one tensor as wide as a SIMD vector."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edgekit.export.onnx.passes.dense_blocks import added_by, dense_chains
from edgekit.export.onnx.passes.editing import (
    Weights,
    channels_of,
    insert,
    replace,
    reweighted,
)
from edgekit.export.onnx.passes.zero_channels import append_zeros, takes_zeros, with_channels

# Block size of ONNX Runtime's NCHWc convolutions with AVX-512.
LANES = 16


def pack_channels(model: ir.Model) -> int:
    """Pack the growth of dense blocks into tensors of `LANES` channels and return the number of layers packed.

    LANES / g layers that each append g channels share one tensor. Each convolution outputs LANES channels, of which all
    but its own g are zero. The outputs of the layers before it are added; ONNX Runtime fuses this addition into the
    convolution. A layer that reads the tensor before all its channels are computed has zero weights for the missing
    ones. Concatenations then join whole vectors and need no reordering. The output is the same; on processors without
    NCHWc kernels the rewrite only adds cost.
    """
    return sum(_pack(chain) for chain in list(dense_chains(model.graph)))


def _pack(chain: list[ir.Node]) -> int:
    first = chain[0].inputs[0]
    before = channels_of(first) if first is not None else None
    added = {len(conv.bias) for conv in map(added_by, chain) if conv is not None}
    growth = added.pop()
    if before is None or before % LANES or added or LANES % growth or growth == LANES:
        return 0
    together = LANES // growth
    packed = 0
    for start in range(0, len(chain), together):
        group = chain[start : start + together]
        partly = group if len(group) < together else group[:-1]
        if not all(takes_zeros(concat.outputs[0], chain) for concat in partly):
            break
        _pack_group(group, growth, chain)
        packed += len(group)
    return packed


def _pack_group(group: list[ir.Node], growth: int, chain: list[ir.Node]) -> None:
    base = group[0].inputs[0]
    shared: ir.Value | None = None
    for index, concat in enumerate(group):
        conv = added_by(concat)
        assert conv is not None
        own = slice(index * growth, (index + 1) * growth)
        shape = with_channels(conv.node.outputs[0].shape, LANES)
        given = reweighted(conv, _placed(conv.weight, own), _placed(conv.bias, own))
        given.shape = shape
        shared = insert(concat, "Add", [given, shared], like=conv.node) if shared is not None else given
        shared.shape = shape
        joined = insert(concat, "Concat", [base, shared], {"axis": 1})
        if missing := LANES - own.stop:
            append_zeros(concat.outputs[0], missing, chain)
        wider = concat.outputs[0].shape
        replace(concat, joined)
        joined.shape = wider


def _placed(weights: Weights, rows: slice) -> Weights:
    result = np.zeros((LANES, *weights.shape[1:]))
    result[rows] = weights
    return result
