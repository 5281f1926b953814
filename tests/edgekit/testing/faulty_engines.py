"""Engines that break one rule of the interface each, and one that breaks none."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgekit.device.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgekit.errors import InputError


class Conforming(OnnxRuntimeEngine):
    pass


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


class Noisy(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        return super().infer(tensor) + np.float32(1e-5 * np.random.default_rng().random())


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


class Crashes(OnnxRuntimeEngine):
    def __init__(self, path: Path, *arguments: Any) -> None:
        if path.exists() and path.stat().st_size == 0:
            print("terminate called", file=sys.stderr, flush=True)
            os.abort()
        super().__init__(path, *arguments)


class KeepsFiles(OnnxRuntimeEngine):
    def __init__(self, path: Path, *arguments: Any) -> None:
        super().__init__(path, *arguments)
        os.open(path, os.O_RDONLY)


class KeepsThreads(OnnxRuntimeEngine):
    def __init__(self, path: Path, *arguments: Any) -> None:
        super().__init__(path, *arguments)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class KeepsMemory(OnnxRuntimeEngine):
    kept: ClassVar[list[bytes]] = []

    def __init__(self, path: Path, *arguments: Any) -> None:
        super().__init__(path, *arguments)
        self.kept.append(os.urandom(1 << 20))


class IgnoresCtrlC(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return super().infer(tensor)


class TurnsCtrlCIntoItsOwn(OnnxRuntimeEngine):
    def infer(self, tensor: Any) -> Any:
        def refuse(*_: object) -> None:
            raise RuntimeError("cancelled")

        signal.signal(signal.SIGINT, refuse)
        return super().infer(tensor)
