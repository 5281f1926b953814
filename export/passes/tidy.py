"""Last rewrite of every export: gives nodes readable names and removes paths of the exporting machine."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from onnxscript import ir
from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_ROLES = {"Conv": ("input", "weight", "bias"), "Gemm": ("input", "weight", "bias"), "MatMul": ("input", "weight")}


def tidy(model: ir.Model) -> None:
    """Rename nodes, tensors and constants, and clear the exporter's metadata.

    A node has the name of its module (`blocks.0.1.expand`); an operation in a module's own code has the module's name
    followed by the operation's (`blocks.0.1.concat`). A tensor has the name of the node that computes it, weights
    `NODE.weight` and `NODE.bias`. The graph's inputs and outputs keep their names.
    """
    graph = model.graph
    fixed = {*graph.inputs, *graph.outputs}
    unique = _Unique(value.name for value in fixed)
    for node in graph:
        node.name = unique(_title(node))
        for value in node.outputs:
            if value not in fixed:
                value.name = node.name if len(node.outputs) == 1 else unique(f"{node.name}.output")
    _rename_constants(graph, unique)
    ClearMetadataAndDocStringPass()(model)
    for value in fixed:  # the pass clears nodes and graphs only
        value.metadata_props.clear()


def _rename_constants(graph: ir.Graph, unique: _Unique) -> None:
    """Name each initialiser after the node that reads it first and its role there: NODE.weight, NODE.bias."""
    # Temporary names first, because the new name of an initialiser may be the old one of another.
    for index, constant in enumerate(list(graph.initializers.values())):
        constant.name = f"\0{index}"
    named: set[ir.Value] = set()
    for node in graph:
        roles = _ROLES.get(node.op_type, ())
        for position, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value not in named:
                role = roles[position] if position < len(roles) else "constant"
                value.name = unique(f"{node.name}.{role}")
                named.add(value)


def _title(node: ir.Node) -> str:
    """Return MODULE.operation as the name of a node, from the metadata of torch's exporter.

    For a layer of torch.nn it is MODULE alone, because such a layer is one node.
    """
    # Names and classes of the modules around the node, from the net inwards; the last entry is the operation itself.
    scopes = _metadata(node, _SCOPES)
    classes = _metadata(node, _CLASSES)
    operation = node.op_type.lower()
    module = scopes[-2] if len(scopes) > 1 else ""
    if not module:
        return operation
    is_layer = len(classes) > 1 and classes[-2].startswith("torch.nn.modules.")
    return module if is_layer else f"{module}.{operation}"


def _metadata(node: ir.Node, key: str) -> list[str]:
    """Return a list that torch's exporter stored as a Python literal, from the net to the operation."""
    return [str(entry) for entry in ast.literal_eval(node.metadata_props.get(key, "[]"))]


class _Unique:
    """Function that makes names unique; `taken` are the names that exist already."""

    def __init__(self, taken: Iterable[str | None]) -> None:
        self._taken = set(taken)

    def __call__(self, name: str) -> str:
        """Return a name that was not returned before: `name`, or `name` with a number appended."""
        candidate, number = name, 0
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate
