"""Bytes that each node of a graph moves, with quantisation fused into the nodes around it and without a cache.

`edgekit.export.profiling.cost` counts the traffic of each node alone. ONNX Runtime and ncnn read and write the 8-bit
tensors of a quantised graph directly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from edgekit.export.profiling.cost import MOVE_NOTHING, RENAME, size_bytes
from edgekit.export.tensors import TensorInfo, constant_tensors, graph_tensors


def moved_bytes(model: onnx.ModelProto, seen: Mapping[str, TensorInfo] | None = None) -> tuple[int | None, ...]:
    """Return the bytes that each node reads and writes at batch size 1; None if a shape is unknown.

    Without quantisation the counts equal those of `graph_cost`. `seen` has computed shapes, see `graph_tensors`.

    Raises:
        InputError: Shape inference fails.
    """
    tensors = graph_tensors(model, constant_tensors(model.graph), seen)
    stored_as, fused = _fused(model.graph)
    moved: list[int | None] = []
    for index, node in enumerate(model.graph.node):
        still = index in fused or node.op_type in MOVE_NOTHING
        names = [] if still else [_stored(name, stored_as) for name in (*node.input, *node.output) if name]
        moved.append(size_bytes(names, tensors))
    return tuple(moved)


def weight_bytes(model: onnx.ModelProto, seen: Mapping[str, TensorInfo] | None = None) -> tuple[int | None, ...]:
    """Return the bytes of constants that each node reads, in their stored type; None if unknown.

    `seen` has computed shapes, see `graph_tensors`.
    """
    constants = constant_tensors(model.graph)
    tensors = graph_tensors(model, constants, seen)
    stored_as = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    read = ([stored_as.get(name, name) for name in node.input] for node in model.graph.node)
    return tuple(size_bytes([name for name in names if name in constants], tensors) for names in read)


def _fused(graph: onnx.GraphProto) -> tuple[dict[str, str], set[int]]:
    """Return the name of the stored tensor for each fused or renamed one, and the indices of the fused nodes."""
    readers = Counter(name for node in graph.node for name in node.input)
    results, constants = {value.name for value in graph.output}, constant_tensors(graph)
    made = {name for node in graph.node for name in node.output}
    stored_as: dict[str, str] = {}
    fused: set[int] = set()
    for index, node in enumerate(graph.node):
        source = node.input[0] if node.input else ""
        if node.op_type in RENAME and source not in constants:
            stored_as[node.output[0]] = source
        elif node.op_type == "DequantizeLinear":
            # The readers of the result read the 8-bit tensor.
            stored_as[node.output[0]] = source
            fused.add(index)
        elif node.op_type == "QuantizeLinear" and source in made and readers[source] == 1 and source not in results:
            stored_as[source] = node.output[0]
            fused.add(index)
    return stored_as, fused


def _stored(name: str, stored_as: Mapping[str, str]) -> str:
    seen = {name}
    while name in stored_as and stored_as[name] not in seen:
        name = stored_as[name]
        seen.add(name)
    return name
