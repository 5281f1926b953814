"""Inference time on this machine, and each layer's share of it from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit.device.engines.session import load_session, run_session, session_options
from edgekit.errors import InputError

_WARM_UP_RUNS = 3
# The profiler keeps all events in memory and slows small nets down.
_PROFILED_RUNS = 50


@dataclass(frozen=True)
class MeasuredNode:
    """A node that ONNX Runtime ran, after fusion: median time with profiler, and its share of all nodes' time."""

    name: str
    op_type: str
    median_ms: float
    share: float


@dataclass(frozen=True)
class MeasuredGraph:
    """Median time of `runs` inferences without profiler, and the nodes in execution order."""

    runs: int
    intra_op_threads: int
    median_ms: float
    nodes: tuple[MeasuredNode, ...]

    def by_kind(self) -> list[tuple[str, float]]:
        """Return (operator, share of the time) for each operator, the largest share first."""
        shares: dict[str, float] = defaultdict(float)
        for node in self.nodes:
            shares[node.op_type] += node.share
        return sorted(shares.items(), key=lambda pair: -pair[1])


def measure_layers(
    path: Path, inputs: Sequence[onnx.ValueInfoProto], intra_op_threads: int, seconds: float, content: bytes | None
) -> MeasuredGraph:
    """Run a model on noise and return its inference time and each node's share.

    The inference time is measured without profiler. Then up to 50 more inferences run with ONNX Runtime's profiler.

    Args:
        path: The .onnx file.
        inputs: The inputs, with fixed shapes.
        intra_op_threads: Threads within one inference.
        seconds: Duration of the measurement without profiler; at least ten inferences run.
        content: The same model, serialised, with names for all nodes; it is run instead of the file.

    Raises:
        InputError: The model cannot be loaded or run on noise of these shapes.
    """
    source = content or str(path)
    try:
        feed = {value.name: _noise(value, path) for value in inputs}
        session = load_session(path, source, session_options(intra_op_threads))
        times_ms = _run(session, path, feed, seconds)
        del session  # before the next one, because a model can be large
        events = _profiler_events(path, source, intra_op_threads, feed, min(len(times_ms), _PROFILED_RUNS))
    except InputError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"model '{path}' cannot be timed on noise: {reason}") from error
    return MeasuredGraph(len(times_ms), intra_op_threads, float(np.median(times_ms)), _nodes(events))


def _run(session: ort.InferenceSession, path: Path, feed: dict[str, NDArray[Any]], seconds: float) -> list[float]:
    for _ in range(_WARM_UP_RUNS):
        run_session(session, path, None, feed)
    times_ms: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(times_ms) < 10 or time.perf_counter() < until_s:
        started_s = time.perf_counter()
        run_session(session, path, None, feed)
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    return times_ms


def _profiler_events(
    path: Path, source: str | bytes, intra_op_threads: int, feed: dict[str, NDArray[Any]], runs: int
) -> list[dict[str, Any]]:
    """Return the events that ONNX Runtime's profiler records in `runs` inferences."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(intra_op_threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = load_session(path, source, options)
        for _ in range(runs):
            run_session(session, path, None, feed)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def _nodes(events: Iterable[dict[str, Any]]) -> tuple[MeasuredNode, ...]:
    """Return the median time per node from the profiler's events; the first, slower inference is included."""
    times_us: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        name, details = str(event.get("name", "")), event.get("args")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time") or not isinstance(details, dict):
            continue
        node = name.removesuffix("_kernel_time")
        times_us[node].append(float(str(event["dur"])))
        kinds[node] = str(details.get("op_name", "?"))
    medians_ms = {node: float(np.median(values)) / 1e3 for node, values in times_us.items()}
    total_ms = sum(medians_ms.values()) or 1.0
    return tuple(MeasuredNode(name, kinds[name], ms, ms / total_ms) for name, ms in medians_ms.items())


def _noise(value: onnx.ValueInfoProto, path: Path) -> NDArray[Any]:
    tensor = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if kind.kind not in "fiub":
        raise InputError(f"model '{path}': input '{value.name}' has type {kind}, which cannot be filled with noise")
    shape = [dim.dim_value for dim in tensor.shape.dim]
    return np.random.default_rng(0).integers(0, 128, shape, np.uint8).astype(kind)
