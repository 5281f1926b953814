"""Rewrite merge-pool: a convolution and the average pool behind it become one strided convolution."""

from __future__ import annotations

import numpy as np
from onnxscript import ir

from edgekit.export.passes.editing import (
    Convolution,
    Weights,
    convolution,
    has_plain_padding,
    insert,
    integer,
    ints,
    is_read_once,
    replace,
    reweighted,
)


def merge_pool(model: ir.Model) -> int:
    """Merge average pools into the convolutions before them and return the number of convolutions changed.

    The mean over p x p outputs of a k x k convolution is one (k + p - 1) x (k + p - 1) convolution with the pool's
    stride s: 3 x 3 before a pool of 2 becomes 4 x 4 with stride 2. This saves multiplications if k + p - 1 < k s. The
    pool of a concatenation or a sum is first distributed over its inputs if at least one input is a convolution that
    can be merged; the other inputs keep a pool.
    """
    nodes = list(model.graph)  # all of them, before a merge changes the graph
    return sum(_merge(node) for node in nodes if node.op_type == "AveragePool")


def _merge(pool: ir.Node) -> int:
    """Merge one average pool into the convolutions before it, where that saves work; return their number.

    Only a pool without padding and dilation is merged, whose windows and strides are square.
    """
    value = pool.inputs[0]
    kernel = ints(pool, "kernel_shape", ())
    strides = ints(pool, "strides", [1] * len(kernel))
    # With `ceil_mode`, the last window may extend beyond the edge.
    has_padding = any(ints(pool, "pads", ())) or integer(pool, "ceil_mode", 0) != 0 or not has_plain_padding(pool)
    is_dilated = set(ints(pool, "dilations", [1])) != {1}
    is_square = len(set(kernel)) == 1 and len(set(strides)) == 1
    if value is None or has_padding or is_dilated or not is_square:
        return 0
    size, stride = kernel[0], strides[0]
    count = _count_mergeable(value, size, stride)
    if count > 0:
        replace(pool, _pooled(value, pool, size, stride))
    return count


def _count_mergeable(value: ir.Value, size: int, stride: int) -> int:
    """Return the number of convolutions that a pool of `value`, with this size and stride, can be merged into.

    It is 1 or 0 for the output of a convolution, and may be larger for a concatenation or a sum of such outputs.
    """
    if not is_read_once(value):
        return 0
    if parts := _pooled_separately(value):
        return sum(_count_mergeable(part, size, stride) for part in parts)
    return 0 if _convolution_worth_merging(value, size, stride) is None else 1


def _pooled_separately(value: ir.Value) -> list[ir.Value]:
    """Return the values that can be pooled one by one instead of `value`; empty if there are none.

    These are the inputs of a concatenation of channels, or the terms of a sum, unless one of them is broadcast.
    """
    node = value.producer()
    if node is None or not is_read_once(value):
        return []
    inputs = [part for part in node.inputs if part is not None]
    if node.op_type == "Concat" and integer(node, "axis", 0) == 1:
        return inputs
    shapes = {None if part.shape is None else tuple(part.shape) for part in inputs}
    if node.op_type == "Add" and len(shapes) == 1 and None not in shapes:
        return inputs
    return []


def _convolution_worth_merging(value: ir.Value, size: int, stride: int) -> Convolution | None:
    """Return the convolution that computes `value`; None if a pool cannot be merged into it, or this saves nothing."""
    conv = convolution(value.producer())
    # Only 2-D convolutions without strides and dilations.
    if conv is None or not is_read_once(value) or conv.weight.ndim != 4 or conv.steps != ((1, 1), (1, 1)):
        return None
    height, width = conv.weight.shape[2:]
    # Multiplications per output of the pool: one larger kernel, or the kernel at each of stride x stride positions.
    saves = (height + size - 1) * (width + size - 1) < height * width * stride * stride
    return conv if saves else None


def _pooled(value: ir.Value, pool: ir.Node, size: int, stride: int) -> ir.Value:
    """Insert nodes that average `value` over the windows of `pool`, and return their output.

    The pool is distributed over the parts of a concatenation or sum, or merged into the convolution that computes
    `value`. Where neither saves work, it stays a pool.
    """
    node = value.producer()
    if node is not None and _count_mergeable(value, size, stride):
        if parts := _pooled_separately(value):  # the inputs of a concatenation or sum
            pooled = [_pooled(part, pool, size, stride) for part in parts]
            return insert(pool, node.op_type, pooled, dict(node.attributes), like=node)
        conv = _convolution_worth_merging(value, size, stride)
        assert conv is not None  # otherwise nothing would be mergeable
        return reweighted(conv, _averaged(conv.weight, size), conv.bias, strides=[stride, stride])
    return insert(pool, "AveragePool", [value], dict(pool.attributes))


def _averaged(weight: Weights, size: int) -> Weights:
    """Return the weights of one convolution that replaces another one and the average over size x size of its outputs.

    Weights are (out, in, height, width). The new ones are the mean of the old ones at each place of the window.
    """
    height, width = weight.shape[2:]
    result = np.zeros((*weight.shape[:2], height + size - 1, width + size - 1))
    for row in range(size):
        for column in range(size):
            result[:, :, row : row + height, column : column + width] += weight / size**2
    return result
