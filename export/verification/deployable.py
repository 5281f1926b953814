"""Whether the oldest supported onnxruntime can run a graph, known from a list of its operators before a board says no.

`oldest_runtime.json` is written by `tools/runtime_kernels.py` with that onnxruntime.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

# Names a folder made by `pip install --target` that holds the oldest supported onnxruntime.
OLDEST_RUNTIME_VARIABLE = "EDGEKIT_ONNXRUNTIME_1_20"

_LOAD_TIMEOUT_S = 120
# Beyond what onnx itself can be asked about.
_NO_VERSION = 1 << 31
_LOAD = """
import sys
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
try:
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    sys.exit(str(error))
print(onnxruntime.__version__)
"""


@dataclass(frozen=True)
class OldestRuntime:
    """What the oldest supported onnxruntime knows.

    `opsets` has the newest operator set of each domain; `kernels` the ranges of versions (last None: none newer was
    known) of each operator that runs on a CPU, by domain and name.
    """

    version: str
    ir_version: int
    opsets: Mapping[str, int]
    kernels: Mapping[str, Mapping[str, list[tuple[int, int | None]]]]


@cache
def oldest_runtime() -> OldestRuntime:
    """Return what is known of the oldest supported onnxruntime."""
    document = json.loads(Path(__file__).with_name("oldest_runtime.json").read_text())
    return OldestRuntime(document["onnxruntime"], document["ir_version"], document["opsets"], document["kernels"])


def device_faults(model: onnx.ModelProto) -> list[str]:
    """Return why the oldest supported onnxruntime could not run a graph, a line for each reason; empty if it can."""
    oldest = oldest_runtime()
    faults = []
    if model.ir_version > oldest.ir_version:
        faults.append(
            f"the file has IR version {model.ir_version}, onnxruntime {oldest.version} reads up to {oldest.ir_version}"
        )
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    if nonsense := [version for version in opsets.values() if not 0 < version < _NO_VERSION]:
        return [*faults, f"operator set {nonsense[0]} is none"]
    for domain, version in opsets.items():
        if domain not in oldest.opsets and any(node_domain == domain for node_domain, _ in _used(model)):
            faults.append(f"operator set '{domain}' is unknown to onnxruntime {oldest.version}")
        elif version > oldest.opsets.get(domain, version):
            faults.append(
                f"operator set {domain or 'ai.onnx'} {version} is newer than onnxruntime {oldest.version} knows: "
                f"export with {oldest.opsets[domain]} or older"
            )
    local = {(function.domain, function.name) for function in model.functions}
    for domain, name in sorted(set(_used(model)) - local):
        if domain in oldest.opsets and not _runs(oldest, domain, name, opsets.get(domain, 1)):
            faults.append(f"operator {name} of set {opsets.get(domain, 1)} is unknown to onnxruntime {oldest.version}")
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        faults.append(
            f"{len(outside)} tensors ('{outside[0]}') are kept outside the file: a device gets the file alone"
        )
    return faults


def load_in_oldest_runtime(path: Path, folder: str | None = None) -> tuple[str | None, str | None]:
    """Load a file in the oldest supported onnxruntime, in a process of its own.

    Args:
        path: The model.
        folder: Where that onnxruntime is; default: what the environment names.

    Returns:
        The version that loaded it, or None where there is none; and what it said against the file, or None.
    """
    folder = folder or os.environ.get(OLDEST_RUNTIME_VARIABLE)
    if not folder:
        return None, None
    command = [sys.executable, "-c", _LOAD, str(path)]
    environment = {**os.environ, "PYTHONPATH": folder}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None, f"the onnxruntime in '{folder}' does not answer"
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"ends with {done.returncode}"]
        return None, f"the onnxruntime in '{folder}' refuses the file: {reason[-1]}"
    return done.stdout.strip(), None


def _used(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    yield from _nodes_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield _domain(node.domain), node.op_type


def _nodes_of(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    for node in graph.node:
        yield _domain(node.domain), node.op_type
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes_of(inner)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _runs(oldest: OldestRuntime, domain: str, name: str, opset: int) -> bool:
    ranges = oldest.kernels[domain].get(name, [])
    if domain:
        return bool(ranges)
    try:
        schema = onnx.defs.get_schema(name, opset, domain)
    except onnx.defs.SchemaError:
        return False
    # An operator without kernel may be made of others, which onnxruntime then puts in its place. Constants are none.
    made_of_others = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    if name == "Constant" or (not ranges and made_of_others):
        return True
    # As onnxruntime matches: a kernel without end is for the version it was written for and no later one.
    since = schema.since_version
    return any(since == first or (last is not None and first <= since <= last) for first, last in ranges)
