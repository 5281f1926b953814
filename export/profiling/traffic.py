"""Bytes between cache and memory: what is left of a graph's traffic when nodes are fused and a cache keeps things.

`edgekit.export.profiling.cost` counts what nodes read and write as the graph stands. Here activations and quantisation are part
of the node before or behind them, as in ONNX Runtime and ncnn, and a cache of some size keeps what was used last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import onnx

from edgekit.export.profiling.cost import MOVE_NOTHING, RENAME
from edgekit.export.tensors import TensorInfo, constant_tensors, graph_tensors

# What runtimes compute on a convolution's or product's result before they write it.
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
    """Return for each node of a graph how many bytes it moves between the cache and memory, for a batch of one.

    The cache holds whole tensors; those used longest ago leave it first, and a result that leaves is written to memory
    if it is read again. A tensor larger than the cache always comes from memory. Counted is an inference that follows
    another: weights of a small net are there already. None where a shape is not known. Quantisation is always part of
    the nodes around it; without `fuse_activations` and with a cache of nothing the rest is what `graph_cost` counts.
    `seen` is for computed shapes, see `graph_tensors`.

    Raises:
        InputError: The graph is invalid, so its shapes cannot be worked out.
    """
    constants = constant_tensors(model.graph)
    tensors = graph_tensors(model, constants, seen)
    stands_for, silent = _fused(model.graph, constants, fuse_activations)
    uses = _uses(model.graph, stands_for, silent)
    cache = _Cache(cache_bytes)
    moved: list[int | None] = []
    for _ in range(2):
        moved = []
        left = dict(uses)
        for index, node in enumerate(model.graph.node):
            if index in silent or node.op_type in MOVE_NOTHING:
                moved.append(0)
                continue
            moved.append(_node_bytes(node, stands_for, tensors, cache, left, constants))
    return tuple(moved)


def weight_bytes(model: onnx.ModelProto, seen: Mapping[str, TensorInfo] | None = None) -> tuple[int | None, ...]:
    """Return for each node how many bytes of constants it reads, in eight bits where they are kept so.

    None where a size is not known. `seen` as for `memory_bytes`.
    """
    constants = constant_tensors(model.graph)
    tensors = graph_tensors(model, constants, seen)
    kept_as = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    totals: list[int | None] = []
    for node in model.graph.node:
        names = [kept_as.get(name, name) for name in node.input]
        sizes = [tensors[name].size_bytes for name in names if name in constants]
        known = [size for size in sizes if size is not None]
        totals.append(sum(known) if len(known) == len(sizes) else None)
    return tuple(totals)


class _Cache:
    """Tensors by name, the one used last at the end; counts the bytes that pass."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._held: OrderedDict[str, tuple[int, bool]] = OrderedDict()

    def touch(self, name: str, size: int, *, written: bool, wanted: Mapping[str, int]) -> int:
        """Use a tensor and return how many bytes that moves between cache and memory."""
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
            gone, (held, changed) = self._held.popitem(last=False)
            moved += held if changed and wanted.get(gone, 0) > 0 else 0
        return moved


def _node_bytes(
    node: onnx.NodeProto,
    stands_for: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    cache: _Cache,
    left: dict[str, int],
    constants: Mapping[str, onnx.TensorProto],
) -> int | None:
    total = 0
    names = [(name, False) for name in node.input if name] + [(name, True) for name in node.output if name]
    for name, written in names:
        real = _resolved(name, stands_for)
        size = tensors[real].size_bytes if real in tensors else None
        if size is None:
            return None
        if not written and real not in constants:
            left[real] = left.get(real, 0) - 1
        total += cache.touch(real, size, written=written, wanted=left)
    return total


def _fused(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], fuse_activations: bool
) -> tuple[dict[str, str], frozenset[int]]:
    """Return under which other name a tensor is kept, and the nodes that are part of others or only rename."""
    readers: dict[str, list[int]] = {}
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(index)
        for name in node.output:
            makers[name] = index
    results = {value.name for value in graph.output}
    stands_for: dict[str, str] = {}
    silent: set[int] = set()
    for index, node in enumerate(graph.node):
        source = node.input[0] if node.input else ""
        if node.op_type in RENAME and source not in constants:
            stands_for[node.output[0]] = source
        elif node.op_type == "DequantizeLinear":
            # Whoever reads it reads the eight bits.
            stands_for[node.output[0]] = source
            silent.add(index)
        elif node.op_type != "QuantizeLinear" and not fuse_activations:
            continue
        elif node.op_type == "Mul" and (gate := _swish_gate(graph, node, makers, readers)) is not None:
            swished = graph.node[gate].input[0]
            if swished not in results:
                stands_for[swished] = node.output[0]
                silent |= {index, gate}
        elif node.op_type in (*_ACTIVATIONS, "QuantizeLinear"):
            maker = makers.get(source)
            alone = len(readers[source]) == 1 and source not in results
            fits = maker is not None and (
                node.op_type == "QuantizeLinear" or _ends_in_product(graph, maker, silent, makers)
            )
            if alone and fits:
                stands_for[source] = node.output[0]
                silent.add(index)
    return stands_for, frozenset(silent)


def _swish_gate(
    graph: onnx.GraphProto, node: onnx.NodeProto, makers: Mapping[str, int], readers: Mapping[str, list[int]]
) -> int | None:
    """Return which node is the sigmoid of x * sigmoid(x), where nothing else reads either."""
    for value, factor in (tuple(node.input), tuple(reversed(node.input))):
        gate = makers.get(factor)
        if gate is None or graph.node[gate].op_type != "Sigmoid" or graph.node[gate].input[0] != value:
            continue
        if len(readers[factor]) == 1 and len(readers[value]) == 2 and value in makers:
            return gate
    return None


def _ends_in_product(graph: onnx.GraphProto, maker: int, silent: set[int], makers: Mapping[str, int]) -> bool:
    while maker in silent and graph.node[maker].input[0] in makers:
        maker = makers[graph.node[maker].input[0]]
    return graph.node[maker].op_type in _PRODUCTS


def _resolved(name: str, stands_for: Mapping[str, str]) -> str:
    seen = {name}
    while name in stands_for and stands_for[name] not in seen:
        name = stands_for[name]
        seen.add(name)
    return name


def _uses(graph: onnx.GraphProto, stands_for: Mapping[str, str], silent: frozenset[int]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if index not in silent and node.op_type not in MOVE_NOTHING:
            for name in node.input:
                real = _resolved(name, stands_for)
                uses[real] = uses.get(real, 0) + 1
    return uses
