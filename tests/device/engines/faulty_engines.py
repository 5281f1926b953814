"""Engines that break one rule of the interface each."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.engines.session import OnnxRuntimeEngine
from edgekit.errors import InputError


class OtherLabels(OnnxRuntimeEngine):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        object.__setattr__(self.contract, "labels", self.contract.labels[::-1])


class Imprecise(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        return super().infer(tensor) + np.float32(0.01)


class FirstRowForAll(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        return super().infer(np.repeat(tensor[:1], len(tensor), axis=0))


class DoublePrecision(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        return super().infer(tensor).astype(np.float64)


class ChangesItsInput(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        logits = super().infer(tensor)
        tensor[:] = 0
        return logits


class SharesItsBuffer(OnnxRuntimeEngine):
    """Returns one array for all calls of a thread, like a view of a library's output tensor."""

    _buffers = threading.local()

    def infer(self, tensor: Any) -> Any:
        logits = super().infer(tensor)
        buffer = self._buffers.__dict__.setdefault(str(logits.shape), np.empty_like(logits))
        buffer[:] = logits
        return buffer


class WrongWithFourThreads(OnnxRuntimeEngine):
    def __init__(self, path: Path, intra_op_threads: int) -> None:
        super().__init__(path, intra_op_threads)
        self._error = np.float32(intra_op_threads == 4)

    def infer(self, tensor: Any) -> Any:
        return super().infer(tensor) + self._error


class OneInputForAllThreads(OnnxRuntimeEngine):
    """Stores the inputs of all threads in one place, like a library's input tensor."""

    def infer(self, tensor: Any) -> Any:
        self._input = tensor
        time.sleep(0.001)
        return super().infer(self._input)


class OwnError(OnnxRuntimeEngine):
    def __init__(self, path: Path, *arguments: Any) -> None:
        try:
            super().__init__(path, *arguments)
        except InputError as error:
            raise RuntimeError(str(error)) from error


class TwoLines(OnnxRuntimeEngine):
    def __init__(self, path: Path, *arguments: Any) -> None:
        try:
            super().__init__(path, *arguments)
        except InputError as error:
            raise InputError(f"{error}\nand more") from error
