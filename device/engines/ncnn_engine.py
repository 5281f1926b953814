"""A classifier on ncnn, in float32 throughout: on a processor with half floats ncnn would else round to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import Contract
from edgekit.device.engines.ncnn_file import read_ncnn
from edgekit.device.engines.ncnn_graph import INPUT, OUTPUT
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8

_ROUNDING = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
_WAITING = "OMP_WAIT_POLICY"


class NcnnEngine:
    """A .ncnn file; see `edgekit.device.engines.engine.InferenceEngine`. Images go through one by one, each with a state of its own."""

    contract: Contract

    def __init__(self, path: Path, intra_op_threads: int, spinning: bool = False) -> None:
        """Load the file; see `edgekit.device.engines.engine.open_engine`."""
        file = read_ncnn(path)
        self._path = path
        self._ncnn = _library(path, spinning)
        self.contract = file.contract
        self._net = self._ncnn.Net()
        for name in _ROUNDING:
            if hasattr(self._net.opt, name):  # older ones lack some
                setattr(self._net.opt, name, False)
        self._net.opt.num_threads = intra_op_threads
        # A file, since from memory ncnn would go on using bytes that are no longer there.
        with _as_file(file.weights) as weights:
            if self._net.load_param_mem(file.graph) or self._net.load_model(weights):
                raise InputError(f"model '{path}' cannot be loaded by ncnn {self._ncnn.__version__}: export it again")

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of input tensors float32 (N, channels, H, W).

        Raises:
            InputError: The graph fails on it.
        """
        return np.stack([self._infer_one(image) for image in np.asarray(tensor, np.float32)])

    def _infer_one(self, image: FloatArray) -> FloatArray:
        extractor = self._net.create_extractor()
        # A copy that begins each channel where ncnn's instructions want it.
        extractor.input(INPUT, self._ncnn.Mat(np.ascontiguousarray(image)).clone())
        failed, logits = extractor.extract(OUTPUT)
        if failed:
            raise InputError(f"model '{self._path}' fails while it classifies: export it again (ncnn says {failed})")
        return np.array(logits, np.float32)


def version() -> str | None:
    """Return ncnn's version, where a model of this process runs on it."""
    library = sys.modules.get("ncnn")
    return None if library is None else str(library.__version__)


def _library(path: Path, spinning: bool) -> Any:
    """Import ncnn so that its idle threads sleep unless they are to spin; its thread library asks once, when loaded."""
    before = os.environ.get(_WAITING)
    if before is None and not spinning:
        os.environ[_WAITING] = "PASSIVE"
    try:
        import ncnn
    except ModuleNotFoundError as error:
        if error.name != "ncnn":
            raise
        raise InputError(f"model '{path}' runs on ncnn, which is not installed: pip install 'edgekit[ncnn]'") from error
    finally:
        if before is None:
            os.environ.pop(_WAITING, None)
    return ncnn


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file in memory that holds `content`."""
    handle = os.memfd_create("weights")
    try:
        with open(handle, "wb", closefd=False) as stream:
            stream.write(content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
