"""First layer at which two models differ: intermediate results compared by layer name.

The exporter names a node after its module (`edgekit.export.onnx.passes.tidy`), so an exported file can be compared with
its net, or with another file exported from the same net. If a rewrite divided a layer into several nodes, the output of
the last node is compared. Layers whose shape a rewrite changed are skipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgekit.device.engines.session import load_session, read_contract, run_session, session_options
from edgekit.errors import InputError
from edgekit.export.profiling.cost import load_graph
from edgekit.preprocess import FloatArray, ImageU8, to_input
from edgekit.testing.tolerance import largest_difference, relative_difference

# Largest rms(difference) / rms(reference) of equal layers: rounding of float32.
SAME_FLOAT32 = 1e-4
# The same limit for int8; the layers of the shipped net differ by 0.016 to 0.12 (QDQ).
SAME_INT8 = 0.2

_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class LayerDifference:
    """Difference of one layer; `relative` is rms(difference) / rms(reference)."""

    name: str
    op_type: str
    relative: float
    max_abs: float


def layer_differences(reference: Mapping[str, FloatArray], path: Path, crops: ImageU8) -> list[LayerDifference]:
    """Return the difference of each layer that both models have, in the file's order.

    Args:
        reference: Results of `by_layer` or `file_results` for the same crops.
        path: The .onnx file.
        crops: uint8 (N, H, W, 1 or 3).
    """
    found = file_results(path, crops)
    nodes = _layer_nodes(load_graph(path).graph)
    differences = []
    for name, values in found.items():
        expected = reference.get(name)
        if expected is None or expected.shape != values.shape or expected.size == 0:
            continue
        relative = relative_difference(expected, values)
        relative = relative if np.isfinite(relative) else np.inf
        largest = largest_difference(expected, values)
        differences.append(LayerDifference(name, nodes[name].op_type, relative, largest))
    return differences


def first_difference(differences: Sequence[LayerDifference], same: float) -> LayerDifference | None:
    """Return the first layer whose relative difference exceeds `same` or is NaN; None if there is none."""
    return next((layer for layer in differences if not layer.relative <= same), None)


def file_results(path: Path, crops: ImageU8) -> dict[str, FloatArray]:
    """Return the float32 output of each layer for crops, by the layer's name, in the file's order.

    The graph runs without optimisation, so no node is fused into another.

    Raises:
        InputError: The file cannot be run.
    """
    model = load_graph(path)
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = {value.name for value in inferred.graph.value_info if value.type.tensor_type.elem_type == _FLOAT}
    there = {value.name: value for value in model.graph.output}
    names: dict[str, str] = {}
    for layer, node in _layer_nodes(model.graph).items():
        output = node.output[0] if node.output else ""
        if output in there or output in floats:
            names[layer] = output
    outputs = list(dict.fromkeys(names.values()))
    for output in outputs:
        if output not in there:
            model.graph.output.append(onnx.helper.make_tensor_value_info(output, _FLOAT, None))
    try:
        options = session_options(1, level="none")
        session = load_session(path, model.SerializeToString(), options)
        spec = read_contract(session, path).input
        given = run_session(session, path, outputs, {spec.name: to_input(crops, spec)})
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"model '{path}' fails when its layers are compared: {reason}") from error
    by_output = dict(zip(outputs, given, strict=True))
    return {layer: np.asarray(by_output[output], np.float32) for layer, output in names.items()}


@torch.no_grad()
def net_results(net: nn.Module, tensor: FloatArray) -> dict[str, FloatArray]:
    """Return the output of each module of a net for an input tensor, by the module's name.

    A convolution before a BatchNorm gets the BatchNorm's output, because the exporter merges both into one layer.
    """
    results: dict[str, Tensor] = {}
    made_by: dict[int, str] = {}
    hooks = []

    def keep(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            results[name] = output.clone()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and inputs and id(inputs[0]) in made_by:
                results[made_by[id(inputs[0])]] = results[name]
            made_by[id(output)] = name
            alive.append(output)  # a freed tensor's id could be reused

        return hook

    alive: list[Tensor] = []
    for name, module in net.named_modules():
        if name and not isinstance(module, torch.jit.ScriptModule):
            hooks.append(module.register_forward_hook(keep(name, module)))
    try:
        logits = net.eval()(torch.from_numpy(tensor))
    finally:
        for handle in hooks:
            handle.remove()
    results[""] = logits
    return {name: result.float().numpy() for name, result in results.items()}


def by_layer(results: Mapping[str, FloatArray], path: Path) -> dict[str, FloatArray]:
    """Return a net's results by the names of a file's layers.

    A layer that is named after a module gets the module's output. The last layer inside a module gets that module's
    output, too.
    """
    nodes = _layer_nodes(load_graph(path).graph)
    order = list(nodes)
    named = {}
    for layer, node in nodes.items():
        # Numbered names can also be modules of their own, such as transition_1.
        module = next((name for name in (_node_name(node), layer) if name in results), None)
        if module is not None:
            named[layer] = results[module]
    for module, values in results.items():
        inside = [name for name in order if name.startswith(f"{module}.")] if module else order[-1:]
        if module not in named and inside and inside[-1] not in named:
            named[inside[-1]] = values
    return named


def _layer_nodes(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the last node of each layer, in the graph's order. Layer NAME has the nodes NAME, NAME_1, NAME_2, ..."""
    nodes = {_node_name(node): node for node in graph.node}
    position = {name: index for index, name in enumerate(nodes)}
    last = {}
    for name in nodes:
        numbered = itertools.takewhile(nodes.__contains__, (f"{name}_{number}" for number in itertools.count(1)))
        last[name] = max((name, *numbered), key=position.__getitem__)
    return {name: nodes[last[name]] for name in sorted(last, key=lambda name: position[last[name]])}


def _node_name(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
