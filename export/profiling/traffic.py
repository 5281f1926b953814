"""Bytes that a graph moves between cache and memory, with fused nodes and a cache of a given size.

`edgekit.export.profiling.cost` counts the traffic of each node alone. Here activations and quantisation are fused into
the nodes around them, as in ONNX Runtime and ncnn, and an LRU cache holds tensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

import onnx

from edgekit.export.profiling.cost import MOVE_NOTHING, RENAME, size_bytes
from edgekit.export.tensors import TensorInfo, constant_tensors, graph_tensors

# Operators that runtimes fuse into the convolution or matrix product before them.
_ACTIVATIONS = frozenset(
    {"BatchNormalization", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def memory_bytes(
    model: onnx.ModelProto,
    cache_bytes: int,
    fuse_activations: bool = True,
    seen: Mapping[str, TensorInfo] | None = None,
) -> tuple[int | None, ...]:
    """Return the bytes that each node moves between cache and memory at batch size 1; None if a shape is unknown.

    The cache holds whole tensors and evicts the least recently used; an evicted result is written to memory if it is
    read again. A tensor larger than the cache always goes to memory. The count is that of the second inference, when
    the weights of a small net are in the cache, but not the input image. Quantisation is always fused; without
    `fuse_activations` and with an empty cache all other counts equal those of `graph_cost`. `seen` has computed shapes,
    see `graph_tensors`.

    Raises:
        InputError: Shape inference fails.
    """
    constants = constant_tensors(model.graph)
    tensors = graph_tensors(model, constants, seen)
    stored_name, fused = _fused(model.graph, constants, fuse_activations)
    uses = _uses(model.graph, stored_name, fused)
    cache = _Cache(cache_bytes)
    moved: list[int | None] = []
    for _ in range(2):
        moved = []
        left = dict(uses)
        cache.keep(constants)
        for index, node in enumerate(model.graph.node):
            if index in fused or node.op_type in MOVE_NOTHING:
                moved.append(0)
                continue
            moved.append(_node_bytes(node, stored_name, tensors, cache, left, constants))
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


class _Cache:
    """LRU cache of whole tensors by name; the last entry is the most recently used one."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._held: OrderedDict[str, tuple[int, bool]] = OrderedDict()

    def keep(self, names: Collection[str]) -> None:
        """Remove all tensors but those in `names`; nothing is written to memory."""
        self._held = OrderedDict((name, held) for name, held in self._held.items() if name in names)

    def touch(self, name: str, size: int, *, written: bool, wanted: Mapping[str, int]) -> int:
        """Read or write a tensor and return the bytes moved between cache and memory.

        `wanted` has the number of remaining reads of each tensor: an evicted result without further reads is not
        written to memory.
        """
        if size > self._capacity:
            self._held.pop(name, None)
            return size
        moved = 0
        if name not in self._held and not written:
            moved += size
        dirty = written or (name in self._held and self._held[name][1])
        self._held[name] = (size, dirty)
        self._held.move_to_end(name)
        while sum(held for held, _ in self._held.values()) > self._capacity:
            evicted, (held, changed) = self._held.popitem(last=False)
            moved += held if changed and wanted.get(evicted, 0) > 0 else 0
        return moved


def _node_bytes(
    node: onnx.NodeProto,
    stored_name: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    cache: _Cache,
    left: dict[str, int],
    constants: Mapping[str, onnx.TensorProto],
) -> int | None:
    total = 0
    names = [(name, False) for name in node.input if name] + [(name, True) for name in node.output if name]
    for name, written in names:
        stored = _resolve(name, stored_name)
        size = tensors[stored].size_bytes if stored in tensors else None
        if size is None:
            return None
        if not written and stored not in constants:
            left[stored] = left.get(stored, 0) - 1
        total += cache.touch(stored, size, written=written, wanted=left)
    return total


def _fused(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], fuse_activations: bool
) -> tuple[dict[str, str], frozenset[int]]:
    """Return the name of the stored tensor for each fused one, and the indices of nodes fused into others."""
    readers: dict[str, list[int]] = {}
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(index)
        for name in node.output:
            makers[name] = index
    results = {value.name for value in graph.output}
    stored_name: dict[str, str] = {}
    fused: set[int] = set()
    for index, node in enumerate(graph.node):
        source = node.input[0] if node.input else ""
        if node.op_type in RENAME and source not in constants:
            stored_name[node.output[0]] = source
        elif node.op_type == "DequantizeLinear":
            # The readers of the result read the 8-bit tensor.
            stored_name[node.output[0]] = source
            fused.add(index)
        elif node.op_type != "QuantizeLinear" and not fuse_activations:
            continue
        elif node.op_type == "Mul" and (gate := _swish_gate(graph, node, makers, readers)) is not None:
            swished = graph.node[gate].input[0]
            if swished not in results:
                stored_name[swished] = node.output[0]
                fused |= {index, gate}
        elif node.op_type in (*_ACTIVATIONS, "QuantizeLinear"):
            maker = makers.get(source)
            alone = len(readers[source]) == 1 and source not in results
            fits = maker is not None and (
                node.op_type == "QuantizeLinear" or _ends_in_product(graph, maker, fused, makers)
            )
            if alone and fits:
                stored_name[source] = node.output[0]
                fused.add(index)
    return stored_name, frozenset(fused)


def _swish_gate(
    graph: onnx.GraphProto, node: onnx.NodeProto, makers: Mapping[str, int], readers: Mapping[str, list[int]]
) -> int | None:
    """Return the index of the Sigmoid node in x * sigmoid(x) if no other node reads either factor."""
    for value, factor in (tuple(node.input), tuple(reversed(node.input))):
        gate = makers.get(factor)
        if gate is None or graph.node[gate].op_type != "Sigmoid" or graph.node[gate].input[0] != value:
            continue
        if len(readers[factor]) == 1 and len(readers[value]) == 2 and value in makers:
            return gate
    return None


def _ends_in_product(graph: onnx.GraphProto, maker: int, fused: set[int], makers: Mapping[str, int]) -> bool:
    while maker in fused and graph.node[maker].input[0] in makers:
        maker = makers[graph.node[maker].input[0]]
    return graph.node[maker].op_type in _PRODUCTS


def _resolve(name: str, stored_name: Mapping[str, str]) -> str:
    seen = {name}
    while name in stored_name and stored_name[name] not in seen:
        name = stored_name[name]
        seen.add(name)
    return name


def _uses(graph: onnx.GraphProto, stored_name: Mapping[str, str], fused: frozenset[int]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if index not in fused and node.op_type not in MOVE_NOTHING:
            for name in node.input:
                stored = _resolve(name, stored_name)
                uses[stored] = uses.get(stored, 0) + 1
    return uses
