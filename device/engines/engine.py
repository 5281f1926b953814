"""The interface of inference engines; a file's suffix selects the engine.

edgekit has engines for .onnx and .ncnn files. Another package adds one with an entry point in the group
`edgekit.engines`, whose name is the suffix without its dot; docs/how-to/extending.md describes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgekit.contract import Contract
from edgekit.device import registry
from edgekit.errors import InputError
from edgekit.model_store import DEVICE_SUFFIXES, NCNN_SUFFIX, ONNX_SUFFIX
from edgekit.preprocess import FloatArray, ImageU8

# Names in reports. An engine of another package is named by its suffix.
_OWN = {ONNX_SUFFIX: "onnxruntime", NCNN_SUFFIX: "ncnn"}


class InferenceEngine(Protocol):
    """A classifier's model file, loaded by an engine.

    Several threads may call `infer` at the same time. The arrays that it returns belong to the caller.
    """

    @property
    def contract(self) -> Contract:
        """The file's contract, checked against its graph."""

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits, float32 (N, labels), of N ≥ 1 images.

        Args:
            tensor: (N, channels, H, W), contiguous, of the contract's element type and size; it may be read-only.

        Raises:
            InputError: The graph fails.
            TemporaryError: There is too little memory.
        """


def engine_of(path: Path) -> str:
    """Return the name of the engine for a file: "onnxruntime", "ncnn", or another suffix without its dot.

    Raises:
        InputError: There is no engine for the suffix.
    """
    if path.suffix in _OWN:
        return _OWN[path.suffix]
    if path.suffix not in device_suffixes(str(path)):
        raise InputError(
            f"model '{path}' ends in '{path.suffix}': expected {' or '.join(device_suffixes(str(path)))}, or install a "
            "package with an engine for it (docs/how-to/extending.md)"
        )
    return path.suffix[1:]


def device_suffixes(model: str) -> tuple[str, ...]:
    """Return the suffixes that the file of a model, given as a name or path, may have on this machine.

    For a model without a suffix, or with one of edgekit's own, they are edgekit's own. For another suffix, they are the
    suffixes of all engines: the installed packages are searched, which takes time.
    """
    if Path(model).suffix in ("", *DEVICE_SUFFIXES):
        return DEVICE_SUFFIXES
    return tuple(f".{name}" for name in registry.names("engine"))


def open_engine(path: Path, intra_op_threads: int) -> InferenceEngine:
    """Load a model file with its engine.

    Args:
        path: The file.
        intra_op_threads: Threads within one inference, at least 1.

    Raises:
        InputError: The file cannot be loaded, has no valid contract, its graph does not fit the contract, or its engine
            is not installed.
    """
    engine_of(path)  # raises for an unknown suffix
    # An engine is imported for its own files only: imports take seconds on a Pi.
    engine: InferenceEngine = registry.find("engine", path.suffix[1:])(path, intra_op_threads)
    return engine


def contract_in(path: Path) -> Contract:
    """Return the contract inside a model file of any engine.

    Only the engine of the file is imported, and an .onnx graph is not optimised, because both take time.

    Raises:
        InputError: The file cannot be read or has no valid contract.
    """
    engine = engine_of(path)
    if engine == "ncnn":
        from edgekit.device.engines.ncnn_engine import read_ncnn

        return read_ncnn(path).contract
    if engine == "onnxruntime":
        from edgekit.device.engines.session import open_session, read_contract

        return read_contract(open_session(path, intra_op_threads=1, level="none"), path)
    return open_engine(path, intra_op_threads=1).contract
