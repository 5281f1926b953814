"""Helpers of the rewrites: read constants of a graph, insert nodes and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

Weights = NDArray[np.float64]


def constant(value: ir.Value | None) -> Weights | None:
    """Return a constant's values as float64; None if the value is a graph input or the output of another node."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy().astype(np.float64)


def add_weight(graph: ir.Graph, name: str, array: Weights) -> ir.Value:
    """Add values to the graph as a float32 initialiser, and return it; an existing name gets a number appended."""
    number, candidate = 0, name
    while candidate in graph.initializers:
        number += 1
        candidate = f"{name}_{number}"
    return add_constant(graph, candidate, array.astype(np.float32))


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register an array as an initialiser of its own type and return it; the graph must not contain the name."""
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    like: ir.Node | None = None,
) -> ir.Value:
    """Insert a new node before another one and return its output.

    Args:
        before: A node of the graph.
        op_type: Operator of the new node.
        inputs: Inputs of the new node.
        attributes: Attributes of the new node.
        like: The node from which `tidy` derives the new node's name; default: `before`.
    """
    node = ir.node(op_type, list(inputs), attributes=dict(attributes or {}), num_outputs=1)
    node.metadata_props.update((like or before).metadata_props)
    assert before.graph is not None
    before.graph.insert_before(before, node)
    output = node.outputs[0]
    output.type = before.outputs[0].type  # a rewrite computes in one type
    return output


def replace(old: ir.Node, new: ir.Value) -> None:
    """Remove node `old`, and let all nodes that read its output read `new` instead.

    `new` gets the output's name, type and shape, and takes its place among the graph's outputs.
    """
    replaced = old.outputs[0]
    name = replaced.name
    new.type, new.shape = replaced.type, replaced.shape
    ir.convenience.replace_all_uses_with(replaced, new, replace_graph_outputs=True)
    assert old.graph is not None
    old.graph.remove([old], safe=True)
    new.name = name  # now it is free


@dataclass(frozen=True)
class Convolution:
    """A Conv node, its constant weights (out, in / groups, *kernel) and its bias (out,), zeros if it has none."""

    node: ir.Node
    weight: Weights
    bias: Weights

    @property
    def groups(self) -> int:
        """Number of groups of the convolution, which divide its channels."""
        return integer(self.node, "group", 1)

    @property
    def pads(self) -> tuple[int, ...]:
        """Zero padding as in ONNX: at the beginning of each axis, then at the end of each axis."""
        return ints(self.node, "pads", [0] * (2 * (self.weight.ndim - 2)))

    @property
    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Strides and dilations."""
        ones = [1] * (self.weight.ndim - 2)
        return ints(self.node, "strides", ones), ints(self.node, "dilations", ones)


def convolution(node: ir.Node | None) -> Convolution | None:
    """Return a Conv node with constant weights and explicit padding as a `Convolution`; None for any other node."""
    if node is None or node.op_type != "Conv" or not has_plain_padding(node):
        return None
    weight = constant(node.inputs[1])
    if weight is None:
        return None
    bias_input = node.inputs[2] if len(node.inputs) > 2 else None  # optional
    bias = np.zeros(len(weight)) if bias_input is None else constant(bias_input)
    return None if bias is None else Convolution(node, weight, bias)


def reweighted(
    conv: Convolution,
    weight: Weights,
    bias: Weights | None,
    data: ir.Value | None = None,
    before: ir.Node | None = None,
    **attributes: Any,
) -> ir.Value:
    """Insert a copy of a convolution with other weights, and return the copy's output.

    Args:
        conv: The convolution. It stays in the graph: the caller may `replace` it.
        weight: Weights of the copy.
        bias: Bias of the copy; None: it has none.
        data: Input of the copy; default: that of `conv`.
        before: The node before which the copy is inserted; default: `conv`.
        **attributes: Attributes that differ from those of `conv`.
    """
    graph = conv.node.graph
    assert isinstance(graph, ir.Graph)  # and not a function, which has no initialisers
    name = conv.node.outputs[0].name
    # New initialisers, because another convolution may read the old ones.
    inputs = [data or conv.node.inputs[0], add_weight(graph, f"{name}.weight", weight)]
    if bias is not None:
        inputs.append(add_weight(graph, f"{name}.bias", bias))
    merged = {**conv.node.attributes, "kernel_shape": list(weight.shape[2:]), **attributes}
    return insert(before or conv.node, "Conv", inputs, merged, like=conv.node)


def is_read_once(value: ir.Value) -> bool:
    """Return whether exactly one node reads the value and the value is not a graph output."""
    return not value.is_graph_output() and len(value.uses()) == 1


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Return an attribute that is a list of integers; `default` if the node does not have the attribute."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else tuple(default)


def integer(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute; `default` if the node does not have the attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def has_plain_padding(node: ir.Node) -> bool:
    """Return whether a node's padding is given by `pads`, not by `auto_pad`."""
    return "auto_pad" not in node.attributes or node.attributes["auto_pad"].as_string() == "NOTSET"


def channels_of(value: ir.Value) -> int | None:
    """Return the number of channels (dimension 1) of a value; None if unknown."""
    if value.shape is None or len(value.shape) < 2:
        return None
    size = value.shape[1]
    return size if isinstance(size, int) else None
