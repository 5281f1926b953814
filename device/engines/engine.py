"""The interface of inference engines; a file's suffix selects the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.model_store import NCNN_SUFFIX, ONNX_SUFFIX
from edgekit.preprocess import FloatArray, ImageU8

Engine: TypeAlias = Literal["onnxruntime", "ncnn"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
_ENGINES: dict[str, Engine] = {ONNX_SUFFIX: "onnxruntime", NCNN_SUFFIX: "ncnn"}


class InferenceEngine(Protocol):
    """A classifier's model file, loaded by an engine. Several threads may call `infer` at the same time."""

    @property
    def contract(self) -> Contract:
        """The file's contract, checked against its graph."""

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of input tensors (N, channels, H, W) of the contract's element type.

        Raises:
            InputError: The graph fails.
        """


def engine_of(path: Path) -> Engine:
    """Return the engine for a file.

    Raises:
        InputError: The suffix is not that of a model file.
    """
    if path.suffix not in _ENGINES:
        raise InputError(f"model '{path}' ends in '{path.suffix}': expected {' or '.join(_ENGINES)}")
    return _ENGINES[path.suffix]


def open_engine(path: Path, intra_op_threads: int, spinning: bool = False) -> InferenceEngine:
    """Load a model file with its engine.

    Args:
        path: The file.
        intra_op_threads: Threads within one inference, at least 1.
        spinning: Whether idle threads wait actively between inferences, which keeps processors busy.

    Raises:
        InputError: The file cannot be loaded, has no valid contract, its graph does not fit the contract, or its engine
            is not installed.
    """
    # An engine is imported for its own files only: imports take seconds on a Pi.
    if engine_of(path) == "ncnn":
        from edgekit.device.engines.ncnn_engine import NcnnEngine

        return NcnnEngine(path, intra_op_threads, spinning)
    from edgekit.device.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, intra_op_threads, spinning)


def contract_in(path: Path) -> Contract:
    """Return the contract inside a model file of any engine.

    Raises:
        InputError: The file cannot be read or has no valid contract.
    """
    if engine_of(path) == "ncnn":
        from edgekit.device.engines.ncnn_file import read_ncnn

        return read_ncnn(path).contract
    from edgekit.device.engines.session import open_session, read_contract

    return read_contract(open_session(path, 1, level="none"), path)
