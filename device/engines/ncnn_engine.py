"""A classifier on ncnn. The options that let ncnn use half floats are on only if the contract's precision is float16.

ncnn then stores and computes half floats where the processor has them (Cortex-A76: FEAT_FP16), and float32 elsewhere.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import Contract, Precision, channel_count
from edgekit.errors import EdgekitError, InputError, TemporaryError
from edgekit.files import require_file
from edgekit.install_hint import install_command
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.text import one_line

# Names of the tensors, as pnnx gives them.
INPUT, OUTPUT = "in0", "out0"

_MAGIC = "7767517"
MEMBERS = ("contract.json", "graph.param", "weights.bin")
_DATE = (1980, 1, 1, 0, 0, 0)
# The values of zip entries for a regular file with mode 644 that was made on Unix.
_MADE_ON_UNIX = 3
_UNIX_MODE = 0o100644 << 16
# Exceptions of zipfile for damaged archives: RuntimeError for an encrypted member, NotImplementedError for an unknown
# compression.
_DAMAGES = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class NcnnFile:
    """The content of a .ncnn file: an uncompressed zip archive of contract, graph and weights of a classifier.

    `contract.json` is the contract of every model file; `graph.param` and `weights.bin` are ncnn's own files. The same
    contents always result in the same bytes. Weights are float32, also if the contract's precision is float16. Whether
    graph and weights fit together is checked by ncnn when it loads them.
    """

    contract: Contract
    graph: str
    weights: bytes

    def layers(self) -> list[tuple[str, str]]:
        """Return the name and the kind of each layer."""
        # The lines after the magic number and the counts; each begins with kind and name.
        rows = [line.split() for line in self.graph.splitlines()[2:]]
        return [(row[1], row[0]) for row in rows if len(row) > 1]


def pack_ncnn(contract: Contract, graph: str, weights: bytes) -> bytes:
    """Return the bytes of the .ncnn file of a contract, a graph and its weights, equal for equal contents.

    Raises:
        InputError: The contract does not describe a net for ncnn, or the graph is not a .param file.
    """
    _check(contract, graph)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(MEMBERS, (contract.to_json().encode(), graph.encode(), weights), strict=True):
            # By default these depend on the time and the system.
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = _MADE_ON_UNIX
            entry.external_attr = _UNIX_MODE
            archive.writestr(entry, content)
    return buffer.getvalue()


def read_ncnn(path: Path) -> NcnnFile:
    """Return the content of a .ncnn file.

    Raises:
        InputError: The file is missing, damaged, or not a .ncnn file.
    """
    require_file(path, "model")
    try:
        contract_json, graph_ascii, weights = _members(path)
        contract, graph = Contract.from_json(contract_json.decode()), graph_ascii.decode("ascii")
        _check(contract, graph)
        return NcnnFile(contract, graph, weights)
    except InputError as error:
        raise InputError(f"model '{path}': {one_line(str(error))}") from error
    except _DAMAGES as error:
        reason = one_line(str(error) or type(error).__name__)
        raise InputError(f"model '{path}' is damaged, or not a .ncnn file of 'edgekit export' ({reason})") from error


def _members(path: Path) -> tuple[bytes, bytes, bytes]:
    """Return the contents of contract.json, graph.param and weights.bin."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if names != list(MEMBERS):
            found = ", ".join(name[:40] for name in names[:5]) or "nothing"
            raise InputError(
                f"it holds {found}: expected {', '.join(MEMBERS)}: make it with 'edgekit export --engine ncnn'"
            )
        contract, graph, weights = (archive.read(entry) for entry in entries)
    return contract, graph, weights


def _check(contract: Contract, graph: str) -> None:
    """Raise InputError if ncnn cannot run a net with this contract, or if `graph` is not the text of a .param file."""
    spec, output_name = contract.input, contract.output.name
    if (spec.name, output_name) != (INPUT, OUTPUT):
        raise InputError(
            f"its contract names the tensors '{spec.name}' and '{output_name}', ncnn '{INPUT}' and '{OUTPUT}'"
        )
    if spec.element_type != "float32" or contract.precision == "int8":
        raise InputError(
            f"its contract has {spec.element_type} pixels and precision {contract.precision}: ncnn needs float32 "
            "pixels and precision float32 or float16"
        )
    if not graph.startswith(f"{_MAGIC}\n"):
        raise InputError("its graph is not a .param file of ncnn")


# Options of ncnn that allow float16, and all options that allow less precision than float32.
_FLOAT16_OPTIONS = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
_ROUNDING_OPTIONS = (*_FLOAT16_OPTIONS, "use_bf16_packed", "use_bf16_storage")
_WAIT_POLICY = "OMP_WAIT_POLICY"


class NcnnEngine:
    """The `InferenceEngine` of a .ncnn file. It runs the images of a batch one after the other."""

    contract: Contract

    def __init__(self, path: Path, intra_op_threads: int, *, precision: Precision | None = None) -> None:
        """Load the file, and run it once to check that graph, weights and contract fit together.

        `precision` replaces that of the contract. For the other arguments and the errors see
        `edgekit.device.engines.engine.open_engine`.
        """
        file = read_ncnn(path)
        self._path = path
        self._has_run = False  # whether the graph has run once, see `_failure`
        self._ncnn = _load_library(path)
        self.contract = file.contract
        precision = precision or file.contract.precision
        self._net = self._ncnn.Net()
        options = self._net.opt
        options.num_threads = intra_op_threads
        for name in _ROUNDING_OPTIONS:  # without them, ncnn computes in float32
            if hasattr(options, name):  # older versions of ncnn lack some of them
                setattr(options, name, precision == "float16" and name in _FLOAT16_OPTIONS)
        # From a file, because ncnn would keep references to weights that it loads from memory.
        with _as_file(file.weights) as weights_path:
            # Both return 0 on success.
            if self._net.load_param_mem(file.graph) or self._net.load_model(weights_path):
                raise self._refusal(f"ncnn {self._ncnn.__version__} cannot load its graph and weights")
        spec = self.contract.input
        self.infer(np.zeros((1, channel_count(spec.channels), *spec.size_hw), np.float32))
        self._has_run = True

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of input tensors float32 (N, channels, H, W).

        Raises:
            InputError: The graph fails.
            TemporaryError: The graph fails, although it did not before: the memory may be full.
        """
        return np.stack([self._infer_one(image) for image in np.asarray(tensor, np.float32)])

    def _infer_one(self, image: FloatArray) -> FloatArray:
        """Return the logits (labels,) of one image float32 (channels, H, W)."""
        extractor = self._net.create_extractor()
        # `clone` aligns each channel in memory as ncnn's instructions require.
        extractor.input(INPUT, self._ncnn.Mat(np.ascontiguousarray(image)).clone())
        try:
            failed, output = extractor.extract(OUTPUT)
        except (ValueError, RuntimeError, MemoryError) as error:  # C++ exceptions of ncnn
            raise self._failure(str(error) or type(error).__name__) from error
        if failed:
            raise self._failure(f"error {failed} of ncnn (-100: shapes that do not fit, or too little memory)")
        logits = np.array(output, np.float32)
        if logits.shape != (len(self.contract.labels),):
            labels = len(self.contract.labels)
            raise self._refusal(f"its output has the shape {list(logits.shape)}, but its contract has {labels} labels")
        return logits

    def _failure(self, reason: str) -> EdgekitError:
        """Return the error of a failed inference: temporary if the graph has run before, as without memory."""
        if self._has_run:
            return TemporaryError(f"an inference of model '{self._path}' fails: is the memory full? ({reason})")
        return self._refusal(f"inference fails: {reason}")

    def _refusal(self, reason: str) -> InputError:
        """Return the error of a file that ncnn cannot run."""
        return InputError(f"model '{self._path}' cannot be run by ncnn: {reason}: export it again")


def _load_library(path: Path) -> Any:
    """Import ncnn so that its idle threads sleep, and return its module.

    OpenMP reads this wish from the variable OMP_WAIT_POLICY once, when ncnn loads it; so the variable is set for the
    import only. A value that the user has set is kept.

    Raises:
        InputError: ncnn is not installed; `path` is the model in the message.
    """
    is_set_by_user = _WAIT_POLICY in os.environ
    if not is_set_by_user:
        os.environ[_WAIT_POLICY] = "PASSIVE"
    try:
        import ncnn
    except ModuleNotFoundError as error:
        if error.name != "ncnn":  # another module, which ncnn needs
            raise
        raise InputError(f"model '{path}' runs on ncnn, which is not installed: {install_command('ncnn')}") from error
    finally:
        if not is_set_by_user:
            os.environ.pop(_WAIT_POLICY, None)
    return ncnn


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file in memory that contains `content`, for a library that reads files only."""
    descriptor = os.memfd_create("weights")
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
