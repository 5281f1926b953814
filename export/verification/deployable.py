"""Check whether the oldest supported onnxruntime can run a graph, from the list of its operators.

`tools/runtime_kernels.py` creates the list, `oldest_runtime.json`, from that onnxruntime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

# `onnx.defs.get_schema` raises TypeError for larger versions of an operator set, because it takes an int32.
_LARGEST_VERSION = (1 << 31) - 1


@dataclass(frozen=True)
class OldestRuntime:
    """Operator sets and kernels of the oldest supported onnxruntime.

    `opsets` has the newest operator set per domain. `kernels` has, by domain and operator, the version ranges of its
    CPU kernels: (first, last). A range whose last version is None contains its first version only.
    """

    version: str
    ir_version: int
    opsets: Mapping[str, int]
    kernels: Mapping[str, Mapping[str, list[tuple[int, int | None]]]]


@cache
def oldest_runtime() -> OldestRuntime:
    """Return the operator sets and kernels of the oldest supported onnxruntime."""
    document = json.loads(Path(__file__).with_name("oldest_runtime.json").read_text())
    return OldestRuntime(document["onnxruntime"], document["ir_version"], document["opsets"], document["kernels"])


def device_faults(model: onnx.ModelProto) -> list[str]:
    """Return the reasons why the oldest supported onnxruntime cannot run a graph; empty if it can."""
    oldest = oldest_runtime()
    faults = []
    if model.ir_version > oldest.ir_version:
        faults.append(
            f"the file has IR version {model.ir_version}, onnxruntime {oldest.version} reads up to {oldest.ir_version}"
        )
    used = set(_used(model))  # (domain, operator)
    used_domains = {domain for domain, _operator in used}
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    if invalid := [version for version in opsets.values() if not 0 < version <= _LARGEST_VERSION]:
        return [*faults, f"operator set version {invalid[0]} is invalid"]
    for domain, version in opsets.items():
        if domain not in oldest.opsets:
            if domain in used_domains:  # exporters declare sets that no node uses
                faults.append(f"operator set '{domain}' is unknown to onnxruntime {oldest.version}")
        elif version > oldest.opsets[domain]:
            faults.append(
                f"operator set {domain or 'ai.onnx'} {version} is newer than onnxruntime {oldest.version} supports: "
                f"export with {oldest.opsets[domain]} or older"
            )
    local = {(function.domain, function.name) for function in model.functions}  # defined in the file itself
    for domain, name in sorted(used - local):
        opset = opsets.get(domain, 1)  # ONNX assumes version 1 where a file states none
        # The other domains are reported above.
        if domain in oldest.opsets and not _runs(oldest, domain, name, opset):
            faults.append(f"operator {name} of set {opset} is unknown to onnxruntime {oldest.version}")
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        faults.append(
            f"{len(outside)} tensors ('{outside[0]}') are stored outside the file: a device receives the file only"
        )
    return faults


def _used(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Yield domain and name of the operator of each node, also in the model's functions."""
    yield from _nodes_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield _domain(node.domain), node.op_type


def _nodes_of(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield domain and name of the operator of each node, also in inner graphs, such as the branches of an If."""
    for node in graph.node:
        yield _domain(node.domain), node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes_of(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes_of(inner)


def _domain(name: str) -> str:
    """Return the domain of operators as ONNX stores it: "ai.onnx" and the empty name are the same domain."""
    return "" if name == "ai.onnx" else name


def _runs(oldest: OldestRuntime, domain: str, name: str, opset: int) -> bool:
    """Return whether the runtime can run an operator in the version of the operator set `opset`."""
    ranges = oldest.kernels[domain].get(name, [])
    if domain != "":  # onnxruntime's own operators have one version only; nets have none of the domain ai.onnx.ml
        return bool(ranges)
    try:
        schema = onnx.defs.get_schema(name, opset, domain)
    except onnx.defs.SchemaError:
        return False
    # onnxruntime expands an operator without kernel into its function body. Constant needs no kernel.
    has_body = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    if name == "Constant" or (not ranges and has_body):
        return True
    # onnxruntime's rule: later versions may differ, so a range without a last version contains its first one only.
    since = schema.since_version
    return any(since == first or (last is not None and first <= since <= last) for first, last in ranges)
