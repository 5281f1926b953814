"""Inference time on this machine, and each layer's share of it from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit.device.engines.session import load_session, open_session, run_session, session_options
from edgekit.errors import InputError, StorageError
from edgekit.export.tensors import TensorInfo

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_WARM_UP_RUNS = 3
# The profiler keeps all events in memory and slows small nets down.
_PROFILED_RUNS = 50
_MAX_INPUT_BYTES = 1 << 30


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
    path: Path,
    intra_op_threads: int,
    seconds: float,
    shapes: Mapping[str, Sequence[int]],
    progress: Callable[[float], None] = lambda _: None,
    content: bytes | None = None,
) -> MeasuredGraph:
    """Run a model on noise and return its inference time and each node's share.

    The inference time is measured without profiler. Then up to 50 more inferences run with ONNX Runtime's profiler.

    Args:
        path: The .onnx file.
        intra_op_threads: Threads within one inference.
        seconds: Duration of the measurement without profiler; at least ten inferences run.
        shapes: Shapes of the inputs by name.
        progress: Called with the share done, 0..1.
        content: The same model, serialised, with names for all nodes; it is run instead of the file.

    Raises:
        InputError: The model cannot be loaded or run on noise of these shapes.
        StorageError: The folder for temporary files is full.
    """
    source = content or str(path)
    try:
        session = load_session(path, source, session_options(intra_op_threads))
        feed = {node.name: _noise(node, shapes[node.name], path) for node in session.get_inputs()}
        times_ms = _run(session, path, feed, seconds, progress)
        del session  # before the next one, because a model can be large
        events = _profiler_events(path, source, intra_op_threads, feed, min(len(times_ms), _PROFILED_RUNS))
    except (InputError, StorageError):
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"model '{path}' cannot be timed on noise: {reason}") from error
    return MeasuredGraph(len(times_ms), intra_op_threads, float(np.median(times_ms)), _nodes(events))


def seen_tensors(model: onnx.ModelProto, path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, TensorInfo]:
    """Run a graph once on noise and return shape and element size of each node's output, by the output's name.

    Shapes that are computed at run time are thereby known.

    Raises:
        InputError: The graph cannot be run.
    """
    all_outputs = onnx.ModelProto()
    all_outputs.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    results = {value.name for value in model.graph.output}
    all_outputs.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in results)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(all_outputs.SerializeToString())
        try:
            session = open_session(copy, 1, level="none")
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(path))) from error
        feed = {node.name: _noise(node, shapes[node.name], path) for node in session.get_inputs()}
        try:
            outputs = run_session(session, path, names, feed)
        except InputError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise InputError(f"model '{path}' cannot be run on noise: {str(error).splitlines()[0]}") from error
    return {
        name: TensorInfo(tuple(array.shape), 8 * array.dtype.itemsize)
        for name, array in zip(names, outputs, strict=True)
        if isinstance(array, np.ndarray)
    }


def _run(
    session: ort.InferenceSession,
    path: Path,
    feed: dict[str, NDArray[Any]],
    seconds: float,
    progress: Callable[[float], None],
) -> list[float]:
    for _ in range(_WARM_UP_RUNS):
        run_session(session, path, None, feed)
    times_ms: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(times_ms) < 10 or time.perf_counter() < until_s:
        started_s = time.perf_counter()
        run_session(session, path, None, feed)
        times_ms.append((time.perf_counter() - started_s) * 1e3)
        if len(times_ms) % 32 == 0:
            progress(min(1 - (until_s - time.perf_counter()) / seconds, 1.0))
    progress(1.0)
    return times_ms


def _profiler_events(
    path: Path, source: str | bytes, intra_op_threads: int, feed: dict[str, NDArray[Any]], runs: int
) -> list[dict[str, Any]]:
    """Return the events that ONNX Runtime's profiler records in `runs` inferences.

    Raises:
        StorageError: The folder for temporary files is full.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(intra_op_threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = load_session(path, source, options)
        for _ in range(runs):
            run_session(session, path, None, feed)
        try:
            events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        except json.JSONDecodeError as error:  # onnxruntime ignores that the disk is full
            parent = Path(folder).parent
            raise StorageError(f"'{parent}' is too small for the profile of onnxruntime: free some space") from error
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


def _noise(node: ort.NodeArg, shape: Sequence[int], path: Path) -> NDArray[Any]:
    kind = _TYPES.get(node.type)
    if kind is None:
        raise InputError(f"model '{path}': input '{node.name}' has type {node.type}, which cannot be filled with noise")
    if float(np.prod([float(size) for size in shape])) * np.dtype(kind).itemsize > _MAX_INPUT_BYTES:
        raise InputError(
            f"model '{path}': input '{node.name}' has shape {shape}, which is larger than {_MAX_INPUT_BYTES} bytes"
        )
    values = np.random.default_rng(0).integers(0, 2 if kind is np.bool_ else 128, shape)
    return values.astype(kind)
