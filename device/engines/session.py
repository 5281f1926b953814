"""ONNX Runtime sessions with edgekit's settings."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgekit import __version__
from edgekit.contract import METADATA_KEY, Contract, GraphLevel, required_fields
from edgekit.errors import InputError, TemporaryError
from edgekit.files import require_file
from edgekit.report.document import ThreadUse
from edgekit.text import one_line

_LEVELS: dict[GraphLevel, ort.GraphOptimizationLevel] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# Only fatal errors are logged: the logger prints names from the model file unescaped, and errors raise exceptions too.
_LOG_FATAL = 4
ort.set_default_logger_severity(_LOG_FATAL)
_PC_MACHINES = ("x86_64", "amd64")


def default_intra_op_threads() -> int:
    """Return the default number of threads of an inference: one on a PC, all processors on other machines.

    On a PC small nets are slower with more threads (EdgeCNN: 1.19 ms with one, 1.43 ms with two). On a Pi's slower
    cores four threads are 1.4 to 1.9 times as fast in published latencies.
    """
    return 1 if platform.machine().lower() in _PC_MACHINES else available_processors()


def available_processors() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan_threads(
    staged: bool | None, threads: int | None, processors: int | None = None, *, detects: bool = True
) -> ThreadUse:
    """Return the threads for this machine.

    Parallel stages use the processors better than threads within one stage: on a Pi's Cortex-A53 four threads make a
    net 1.4 to 1.9 times as fast, not four times. So the detector, the longest stage, gets the processors that the other
    stages do not need, and everything else gets one thread. Threads do not spin, because spinning takes processors from
    the other stages. Without a detector, the classifier is the longest stage.

    Args:
        staged: Whether each stage gets a thread; None: if there is more than one processor.
        threads: Threads within each net and OpenCV; None: chosen here.
        processors: Number of processors; default: those that this process may use.
        detects: Whether there is a detector.
    """
    processors = processors or available_processors()
    staged = processors > 1 if staged is None else staged
    if threads is not None:
        return ThreadUse(staged=staged, detector=threads, classifier=threads, opencv=threads)
    if not staged:
        alone = min(default_intra_op_threads(), processors)
        return ThreadUse(staged=False, detector=alone, classifier=alone, opencv=processors)
    longest = 1 if default_intra_op_threads() == 1 else max(processors - 2, 1)
    detector, classifier = (longest, 1) if detects else (1, longest)
    return ThreadUse(staged=True, detector=detector, classifier=classifier, opencv=1)


def open_session(path: Path, intra_op_threads: int, level: GraphLevel = "all") -> ort.InferenceSession:
    """Return a CPU session of an .onnx file, whose idle threads sleep.

    Args:
        path: The model file.
        intra_op_threads: Threads within one inference, at least 1.
        level: ONNX Runtime's level of graph optimisation.

    Raises:
        InputError: The file is missing, is not an ONNX model, or cannot be run by the installed onnxruntime.
        TemporaryError: There is too little memory.
    """
    require_file(path, "model")
    return load_session(path, str(path), session_options(intra_op_threads, level))


def load_session(path: Path, source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Return a session with other options than `open_session`; `source` is the file's name or a model in memory.

    Raises:
        InputError: As `open_session`; `path` is the name in messages.
        TemporaryError: There is too little memory.
    """
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        _raise_lack_of_memory(f"loading model '{path}'", error)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"model '{path}' cannot be loaded by onnxruntime {ort.__version__}: is it an ONNX file? ({reason})"
        ) from error


def run_session(
    session: ort.InferenceSession, path: Path, names: Sequence[str] | None, feed: Mapping[str, Any]
) -> list[Any]:
    """Return the outputs `names` (None: all) of an inference with the inputs `feed`; `path` is the file in messages.

    Raises:
        TemporaryError: There is too little memory.
        Exception: Whatever onnxruntime raises; its exceptions share no base class of their own.
    """
    try:
        outputs: list[Any] = session.run(names, feed)
    except Exception as error:
        _raise_lack_of_memory(f"an inference of model '{path}'", error)
        raise
    return outputs


def _raise_lack_of_memory(what: str, error: Exception) -> None:
    # onnxruntime's exceptions have no class for it.
    if any(words in str(error) for words in ("bad_alloc", "ailed to allocate memory")):
        raise TemporaryError(f"{what} fails: is the memory full? ({one_line(str(error))})") from error


def session_options(intra_op_threads: int, level: GraphLevel = "all") -> ort.SessionOptions:
    """Return the session options of `open_session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _LOG_FATAL
    # A single model is faster with spinning threads, but the pipeline takes nearly twice as long with two spinning
    # threads as with one, because they take processors from capture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def has_contract(session: ort.InferenceSession, path: Path) -> bool:
    """Return whether a model contains a contract, valid or not.

    Raises:
        InputError: The model's metadata is not valid UTF-8.
    """
    return METADATA_KEY in _metadata(session, path)


def read_contract(session: ort.InferenceSession, path: Path) -> Contract:
    """Return the contract inside a model.

    Raises:
        InputError: The model has no contract or an invalid one; the message names the missing fields.
    """
    document = _metadata(session, path).get(METADATA_KEY)
    if document is None:
        raise InputError(
            f"model '{path}' has no edgekit contract: missing {', '.join(required_fields())}: "
            "'edgekit import' attaches one to a classifier of another program, 'edgekit export' writes one"
        )
    try:
        return Contract.from_json(document)
    except InputError as error:
        raise InputError(f"model '{path}': {error}") from error


def _metadata(session: ort.InferenceSession, path: Path) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise InputError(f"model '{path}' has metadata that is not UTF-8 ({error}): export it again") from error


def versions() -> dict[str, str]:
    """Return the versions of edgekit, Python and the libraries by name; ncnn's only if this process uses ncnn."""
    import cv2

    ncnn = sys.modules.get("ncnn")
    return {
        "edgekit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "opencv": cv2.__version__,
        **({"ncnn": str(ncnn.__version__)} if ncnn else {}),
    }
