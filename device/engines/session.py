"""ONNX Runtime: sessions with edgekit's settings, and the engine of .onnx files."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgekit import __version__
from edgekit.contract import METADATA_KEY, Contract, ElementType, GraphLevel, InputSpec, channel_count, required_fields
from edgekit.errors import EdgekitError, InputError, TemporaryError
from edgekit.files import require_file
from edgekit.install_hint import from_debian
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.report.document import ThreadUse
from edgekit.text import counted, one_line

_LEVELS: dict[GraphLevel, ort.GraphOptimizationLevel] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# Only fatal errors are logged: the logger prints names from the model file unescaped, and errors raise exceptions too.
_LOG_FATAL = 4
ort.set_default_logger_severity(_LOG_FATAL)


def _register_schemas() -> None:
    """Let onnxruntime register ONNX's operators now, and drop the error messages that Debian's build prints.

    Debian's build registers each operator twice, and C++ code prints 567 errors to file descriptor 2, past the logger.
    So the descriptor is a file in memory meanwhile; all other text in the file is printed afterwards.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        return
    printed = os.memfd_create("stderr")
    try:
        os.dup2(printed, 2)
        ort.capi.onnxruntime_pybind11_state.get_all_operator_schema()  # registers them
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        text = os.pread(printed, os.fstat(printed).st_size, 0)
        os.close(printed)
        os.write(2, re.sub(rb"Schema error: [^\n]*\n\n?", b"", text))


if from_debian(ort.__file__):
    _register_schemas()

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
    """Return how many threads the pipeline, its nets and OpenCV use on this machine.

    Stages in parallel use the processors better than threads within one stage: on a Pi's Cortex-A53 four threads make a
    net 1.4 to 1.9 times as fast, not four times. So only the longest stage gets several threads: the detector, or the
    classifier of a model without one.

    Args:
        staged: Whether each stage of the pipeline runs in a thread of its own; None: if there are several processors.
        threads: Threads within each net and OpenCV; None: chosen here.
        processors: Number of processors; default: those that this process may use.
        detects: Whether there is a detector.
    """
    processors = processors or available_processors()
    if staged is None:
        staged = processors > 1
    if threads is not None:
        return ThreadUse(staged=staged, detector=threads, classifier=threads, opencv=threads)
    threads_of_a_net = default_intra_op_threads()
    if not staged:
        alone = min(threads_of_a_net, processors)
        return ThreadUse(staged=False, detector=alone, classifier=alone, opencv=processors)
    # Two processors are for the other stages. A PC's nets are fastest with one thread.
    longest_stage = 1 if threads_of_a_net == 1 else max(processors - 2, 1)
    detector, classifier = (longest_stage, 1) if detects else (1, longest_stage)
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
    return load_session(path, source=str(path), options=session_options(intra_op_threads, level))


def load_session(path: Path, source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Return a CPU session with any options, of a file or of a model in memory.

    Args:
        path: The model file in messages.
        source: Name of the file, or the serialised model.
        options: The session's options.

    Raises:
        InputError: As `open_session`.
        TemporaryError: There is too little memory.
    """
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        _raise_if_out_of_memory(f"loading model '{path}'", error)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"model '{path}' cannot be loaded by onnxruntime {ort.__version__}: is it an ONNX file? ({reason})"
        ) from error


def run_session(
    session: ort.InferenceSession, path: Path, names: Sequence[str] | None, feed: Mapping[str, Any]
) -> list[Any]:
    """Run one inference and return its outputs.

    Args:
        session: The session.
        path: The model file in messages.
        names: Names of the outputs; None: all.
        feed: The inputs by name.

    Raises:
        TemporaryError: There is too little memory.
        Exception: Whatever onnxruntime raises; its exceptions share no base class of their own.
    """
    try:
        outputs: list[Any] = session.run(names, feed)
    except Exception as error:
        _raise_if_out_of_memory(f"an inference of model '{path}'", error)
        raise
    return outputs


def _raise_if_out_of_memory(what: str, error: Exception) -> None:
    """Raise TemporaryError if onnxruntime failed for lack of memory; `what` failed."""
    # onnxruntime's exceptions have no class for it.
    if any(words in str(error) for words in ("bad_alloc", "ailed to allocate memory")):
        raise TemporaryError(f"{what} fails: is the memory full? ({one_line(str(error))})") from error


def session_options(intra_op_threads: int, level: GraphLevel = "all") -> ort.SessionOptions:
    """Return ONNX Runtime's options for a net of the pipeline; for the arguments see `open_session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[level]
    options.log_severity_level = _LOG_FATAL
    # Idle threads sleep. Spinning threads make a single model faster, but take processors from the other stages of the
    # pipeline: with two spinning threads, the pipeline takes nearly twice as long.
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
    """Return the metadata of an .onnx file by key; raise InputError if it is not UTF-8."""
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise InputError(f"model '{path}' has metadata that is not UTF-8 ({error}): export it again") from error


def versions() -> dict[str, str]:
    """Return the versions of edgekit, Python and the libraries by name; ncnn's only if this process uses ncnn."""
    import cv2

    found = {
        "edgekit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "opencv": cv2.__version__,
    }
    ncnn = sys.modules.get("ncnn")
    return found if ncnn is None else {**found, "ncnn": str(ncnn.__version__)}


_NODE_TYPES: dict[ElementType, str] = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
_OUTPUT_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")


class OnnxRuntimeEngine:
    """The `InferenceEngine` of an .onnx file."""

    def __init__(self, path: Path, intra_op_threads: int) -> None:
        """Load the file; see `edgekit.device.engines.engine.open_engine`."""
        self._path = path
        self._session = open_session(path, intra_op_threads)
        self.contract = read_contract(self._session, path)
        found = contradictions(self._session, self.contract)
        if found:  # the first contradiction, of which others may be consequences
            raise InputError(f"model '{path}': {found[0]}")

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits or features (N, labels or features) of input tensors (N, channels, H, W).

        Raises:
            InputError: The graph fails, or does not return one row per image.
            TemporaryError: As `run_session`.
        """
        (output,) = self._run([self.contract.output.name], tensor)
        return self._checked(output, len(tensor))

    def infer_with_distance(self, tensor: FloatArray | ImageU8) -> tuple[FloatArray, FloatArray]:
        """Return the logits (N, labels) of `infer`, and the distances (N,); the contract must have a `distance`.

        Raises:
            InputError, TemporaryError: As `infer`.
        """
        assert self.contract.distance is not None
        output, distances = self._run([self.contract.output.name, self.contract.distance.name], tensor)
        return self._checked(output, len(tensor)), np.asarray(distances, np.float32)

    def _run(self, names: list[str], tensor: FloatArray | ImageU8) -> list[Any]:
        """Return the outputs `names` of an inference; raises as `infer`."""
        try:
            return run_session(self._session, self._path, names, {self.contract.input.name: tensor})
        except EdgekitError:  # too little memory: has its own message
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            reason = one_line(str(error))
            raise InputError(f"model '{self._path}' fails in inference: export it again ({reason})") from error

    def _checked(self, output: Any, images: int) -> FloatArray:
        """Return the output as float32, or raise InputError if its shape is not (images, labels or features).

        The contract states the number of labels, but not that of features.
        """
        values = np.asarray(output, np.float32)
        has_labels = self.contract.output.meaning == "logits"
        columns = len(self.contract.labels) if has_labels else values.shape[-1]
        if values.shape != (images, columns):
            shape = " x ".join(map(str, values.shape)) or "1"
            raise InputError(
                f"model '{self._path}' returns {shape} values for {counted(images, 'image')} and "
                f"{counted(len(self.contract.labels), 'label')}: export it with a dynamic batch"
            )
        return values


def contradictions(session: ort.InferenceSession, contract: Contract) -> list[str]:
    """Return one line for each statement of a contract that the graph contradicts, with both values and the cure."""
    spec = contract.input
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    named_outputs = [contract.output.name]
    if contract.distance:
        named_outputs.append(contract.distance.name)
    if list(inputs) != [spec.name] or not outputs.keys() >= set(named_outputs):  # the other checks need these names
        return [
            f"the contract names input '{spec.name}' and output {', '.join(map(repr, named_outputs))}, "
            f"but the graph has {list(inputs)} and {list(outputs)}: export it again"
        ]
    found = _input_contradictions(inputs[spec.name], spec)
    output = outputs[contract.output.name]
    has_labels = contract.output.meaning == "logits"
    if len(output.shape) != 2 or (has_labels and output.shape[1] != len(contract.labels)):
        found.append(
            f"the contract has {len(contract.labels)} labels, but the graph's output is {output.shape}: "
            "export it with as many labels as classes"
        )
    if output.type not in _OUTPUT_TYPES:
        found.append(
            f"the graph's output is {output.type}, the contract's are {contract.output.meaning}: export it again"
        )
    return found


def _input_contradictions(node: ort.NodeArg, spec: InputSpec) -> list[str]:
    """Return one line for each statement about the input that differs from the graph's input `node`."""
    found = []
    expected = [None, channel_count(spec.channels), *spec.size_hw]  # None: any batch size
    # A side of the graph that is not a number is dynamic, and fits each number.
    sides = zip(node.shape[1:], expected[1:], strict=False)  # different numbers of sides are found below
    has_other_side = any(isinstance(side, int) and side != wanted for side, wanted in sides)
    if len(node.shape) != len(expected) or has_other_side:
        found.append(f"the contract's input shape {expected} is not the graph's {node.shape}: export it again")
    elif isinstance(node.shape[0], int):
        found.append(f"the batch size is fixed at {node.shape[0]}: export it with a dynamic batch")
    kind = _NODE_TYPES[spec.element_type]
    if node.type != kind:
        found.append(f"the graph's input is {node.type}, the contract's {kind}: export it again")
    return found
