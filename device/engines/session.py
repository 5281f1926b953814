"""ONNX Runtime sessions with edgekit's settings, and errors that say what is wrong with a file."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import onnxruntime as ort

from edgekit.contract import METADATA_KEY, Contract, GraphLevel, required_fields
from edgekit.errors import InputError
from edgekit.files import require_file

_LEVELS: dict[GraphLevel, ort.GraphOptimizationLevel] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# Fatal only: the logger prints names from the model file raw; errors reach us as exceptions.
_LOG_FATAL = 4
ort.set_default_logger_severity(_LOG_FATAL)
# Of the machine's memory: what all models of a process may take together. A file of a few bytes can ask for terabytes.
_MEMORY_SHARE = 0.5
_PC_MACHINES = ("x86_64", "amd64")


def _bound_memory() -> None:
    """Give the sessions of this process one arena that ends before the machine's memory does."""
    most = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _MEMORY_SHARE)
    default = dict.fromkeys(("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1)
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": most, **default}))


_bound_memory()


def default_intra_op_threads() -> int:
    """Return how many threads an inference gets unless the user says otherwise.

    One on a PC: nets this small finish there sooner than a second thread wakes up (1.19 ms with one thread, 1.43 with
    two, EdgeCNN). All processors elsewhere: on a Pi's slower cores published latencies fall 1.4 to 1.9 times with four.
    """
    return 1 if platform.machine().lower() in _PC_MACHINES else available_processors()


def available_processors() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(
    path: Path,
    intra_op_threads: int,
    spinning: bool = False,
    level: GraphLevel = "all",
) -> ort.InferenceSession:
    """Return a CPU session of an .onnx file.

    Args:
        path: The model file.
        intra_op_threads: Threads within one inference, at least 1.
        spinning: Let idle threads spin between inferences: a lone model answers sooner, but they starve capture and
            each other: with two spinning threads the pipeline takes nearly twice as long as with one.
        level: How far ONNX Runtime rewrites the graph.

    Raises:
        InputError: The file is missing, is no ONNX model, or is one that this onnxruntime cannot run.
    """
    require_file(path, "model")
    options = session_options(intra_op_threads, spinning, level)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"model '{path}' cannot be loaded by onnxruntime {ort.__version__}: is it an ONNX file? ({reason})"
        ) from error


def session_options(intra_op_threads: int, spinning: bool = False, level: GraphLevel = "all") -> ort.SessionOptions:
    """Return the settings of `open_session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _LOG_FATAL
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def has_contract(session: ort.InferenceSession, path: Path) -> bool:
    """Return whether a model says that it has a contract, valid or not.

    Raises:
        InputError: What it says of itself is no text.
    """
    return METADATA_KEY in _metadata(session, path)


def read_contract(session: ort.InferenceSession, path: Path) -> Contract:
    """Return the contract inside a model.

    Raises:
        InputError: The model has none, or one that is not valid here; the message names what is missing.
    """
    document = _metadata(session, path).get(METADATA_KEY)
    if document is None:
        raise InputError(
            f"model '{path}' has no edgekit contract: missing {', '.join(required_fields())}: "
            "make it with 'edgekit export'"
        )
    try:
        return Contract.from_json(document)
    except InputError as error:
        raise InputError(f"model '{path}': {error}") from error


def _metadata(session: ort.InferenceSession, path: Path) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise InputError(f"model '{path}' says of itself what is no text ({error}): export it again") from error
