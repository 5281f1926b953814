"""Search for the dense blocks of a graph: chains of concatenations that each append the output of one convolution."""

from __future__ import annotations

from collections.abc import Iterator

from onnxscript import ir

from edgekit.export.onnx.passes.editing import Convolution, convolution, integer, is_read_once


def dense_chains(graph: ir.Graph) -> Iterator[list[ir.Node]]:
    """Yield each dense block as the list of its concatenations; each appends a convolution's output."""
    seen: set[ir.Node] = set()
    for node in graph:
        chain: list[ir.Node] = []
        current: ir.Node | None = node
        while current is not None and current not in seen and added_by(current) is not None:
            seen.add(current)
            chain.append(current)
            current = _next(current)
        if chain:
            yield chain


def added_by(concat: ir.Node) -> Convolution | None:
    """Return the convolution whose output a Concat node appends to its first input; None for all other nodes."""
    if concat.op_type != "Concat" or integer(concat, "axis", 0) != 1 or len(concat.inputs) != 2:
        return None
    new = concat.inputs[1]
    conv = convolution(new.producer()) if new is not None and is_read_once(new) else None
    return conv if conv is not None and conv.groups == 1 else None


def _next(concat: ir.Node) -> ir.Node | None:
    output = concat.outputs[0]
    following = [use.node for use in output.uses() if use.node.op_type == "Concat" and use.idx == 0]
    return following[0] if len(following) == 1 and not output.is_graph_output() else None
