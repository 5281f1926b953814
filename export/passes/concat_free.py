"""Rewrite concat-free: each input of a dense block's concatenations is convolved once, for all layers that read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnxscript import ir

from edgekit.export.passes.editing import (
    Convolution,
    add_constant,
    channels_of,
    convolution,
    insert,
    integer,
    is_read_once,
    replace,
    reweighted,
)

# The wide convolution's output must fit the L1 cache of a small core. In larger blocks the rewrite saves instructions
# too, but adds memory traffic. Counted on an emulated A53: 0.0483 M L2 misses with this limit, 0.0572 M with 64 KiB,
# which includes EdgeCNN's second block, and 0.0878 M without a limit (files of the commit before
# ca72ebb1 by `export --target a53 --no-pass uint8-input`, counted by benchmarks/cores/count.py).
LARGEST_BYTES = 32 << 10


@dataclass(frozen=True)
class _Reader:
    """A convolution that reads the concatenation of the first `parts` parts of a dense block.

    `terms` has the convolutions of single parts inserted so far; the sum of all terms is the output of `conv`.
    """

    conv: Convolution
    parts: int
    terms: list[ir.Value]


def concat_free(model: ir.Model) -> int:
    """Split the convolutions of dense blocks by input part and return the number of blocks rewritten.

    conv(concat(x, n1, ...)) = conv_x(x) + conv_1(n1) + ...: all terms that read one part, such as n1, become one wide
    convolution and a Split. The number of multiplications is the same, but each part goes through im2col once instead
    of once per layer. Nodes other than these convolutions read a new concatenation of the same parts. Blocks whose wide
    convolution has an output larger than `LARGEST_BYTES` stay unchanged.
    """
    blocks = list(_dense_blocks(model.graph))  # all of them, before a rewrite changes the graph
    return sum(_rewrite_block(model.graph, concats) for concats in blocks)


def _dense_blocks(graph: ir.Graph) -> Iterator[list[ir.Node]]:
    """Yield each dense block as the list of its Concat nodes in order.

    Each Concat appends the output of a convolution to the output of the one before.
    """
    seen: set[ir.Node] = set()
    for node in graph:  # in topological order: the first Concat of a block comes first
        concats: list[ir.Node] = []
        current: ir.Node | None = node
        while current is not None and current not in seen and _appends_convolution(current):
            seen.add(current)
            concats.append(current)
            current = _next_concat(current)
        if concats:
            yield concats


def _appends_convolution(node: ir.Node) -> bool:
    """Return whether a node is a Concat that appends the channels of an ungrouped convolution to its first input.

    No other node may read the convolution.
    """
    if node.op_type != "Concat" or integer(node, "axis", 0) != 1 or len(node.inputs) != 2:
        return False
    appended = node.inputs[1]
    if appended is None or not is_read_once(appended):
        return False
    conv = convolution(appended.producer())
    return conv is not None and conv.groups == 1


def _next_concat(concat: ir.Node) -> ir.Node | None:
    """Return the only Concat node that appends to the output of `concat`; None if there is no such node."""
    output = concat.outputs[0]
    following = [use.node for use in output.uses() if use.node.op_type == "Concat" and use.idx == 0]
    return following[0] if len(following) == 1 and not output.is_graph_output() else None


def _rewrite_block(graph: ir.Graph, concats: list[ir.Node]) -> bool:
    """Rewrite one dense block, given by its Concat nodes in order, and return whether it was changed.

    The parts of the block are x, n1, n2, …: `concats[0]` appends n1 to x, `concats[1]` appends n2, and so on. With the
    parts x, n1 and n2, `concats` has two nodes. The convolutions that read x are readers of one part, those that read
    `concats[0]` are readers of two parts, and those that read `concats[1]` are readers of three.
    """
    # A convolution must read x. While none reads the first input of `concats[0]`, this node is not part of the block.
    while concats and not _readers(graph, concats[0].inputs[0], parts=1):
        concats = concats[1:]
    if not concats:
        return False
    inputs = [concats[0].inputs[0], *(concat.inputs[1] for concat in concats)]
    parts = [part for part in inputs if part is not None]
    counted_concats = list(enumerate(concats, start=2))  # (number of parts that it concatenates, node)
    readers = _readers(graph, parts[0], parts=1)
    for count, concat in counted_concats:
        readers += _readers(graph, concat.outputs[0], parts=count)
    widths = [width for width in map(channels_of, parts) if width is not None]
    # Not with unknown channels, one reader, different kernels, or an output that exceeds a small core's L1 cache.
    if len(widths) != len(parts) or len(readers) < 2 or not _alike(readers) or _wide_bytes(readers) > LARGEST_BYTES:
        return False
    start = 0  # of the part's channels in the block
    for index, (part, width) in enumerate(zip(parts, widths, strict=True)):
        # The new nodes stand before the first node that reads the part. Only `concats[0]` reads n1, and so on.
        before = readers[0].conv.node if index == 0 else concats[index - 1]
        of_part = [reader for reader in readers if reader.parts > index]
        _convolve_part(part, slice(start, start + width), of_part, before)
        start += width
    # Each convolution is replaced by the sum of its terms.
    for reader in readers:
        total = reader.terms[0]
        for term in reader.terms[1:]:
            total = insert(reader.conv.node, "Add", [term, total])
        replace(reader.conv.node, total)
    # Other nodes, such as a pool, may read a concatenation. It is replaced by one of the parts themselves, which needs
    # no other Concat. The first Concat is one of parts already.
    for count, concat in counted_concats[1:]:
        if concat.outputs[0].uses():
            replace(concat, insert(concat, "Concat", parts[:count], {"axis": 1}))
    return True


def _wide_bytes(readers: list[_Reader]) -> float:
    """Return the size in bytes of the wide convolution's output for one image; infinity if a dimension is unknown.

    The output has the channels of all readers, in float32.
    """
    shape = readers[0].conv.node.outputs[0].shape  # (N, channels, height, width)
    if shape is None:
        return math.inf
    sides = [side for side in shape[2:] if isinstance(side, int)]
    if len(sides) != len(shape) - 2:
        return math.inf
    return 4 * math.prod(sides) * sum(len(reader.conv.bias) for reader in readers)


def _readers(graph: ir.Graph, value: ir.Value | None, parts: int) -> list[_Reader]:
    """Return the ungrouped convolutions that read `value`, the first `parts` parts of a block, in the graph's order."""
    nodes = {use.node for use in value.uses() if use.idx == 0} if value is not None else set()
    found = [convolution(node) for node in graph if node in nodes]
    return [_Reader(conv, parts, []) for conv in found if conv is not None and conv.groups == 1]


def _alike(readers: list[_Reader]) -> bool:
    """Return whether all readers have equal kernel size, padding, strides and dilations."""
    kinds = {(reader.conv.weight.shape[2:], reader.conv.pads, reader.conv.steps) for reader in readers}
    return len(kinds) == 1


def _convolve_part(part: ir.Value, channels: slice, readers: list[_Reader], before: ir.Node) -> None:
    """Insert one convolution of a part for all its readers, and a Split of its output; add each output to its reader.

    Args:
        part: The part.
        channels: The channels of the block that are this part.
        readers: The convolutions that read the part.
        before: The node before which the wide convolution is inserted.
    """
    if not readers:
        return
    weight = np.concatenate([reader.conv.weight[:, channels] for reader in readers])  # (out of all, in of the part, …)
    # A bias is added once: with the first part.
    bias = np.concatenate([reader.conv.bias for reader in readers]) if channels.start == 0 else None
    # All readers have equal attributes, so any of them can be copied.
    wide = reweighted(readers[-1].conv, weight, bias, data=part, before=before)
    if len(readers) == 1:
        readers[0].terms.append(wide)
        return
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    output_channels = np.array([len(reader.conv.weight) for reader in readers], np.int64)
    sizes = add_constant(graph, f"{part.name}.sizes", output_channels)
    split = ir.node("Split", [wide, sizes], attributes={"axis": 1}, num_outputs=len(readers))
    split.metadata_props.update(before.metadata_props)  # from which `tidy` makes the node's name
    graph.insert_before(before, split)
    for reader, output in zip(readers, split.outputs, strict=True):
        output.type = wide.type
        reader.terms.append(output)
