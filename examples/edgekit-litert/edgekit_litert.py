"""An engine of edgekit for .tflite files, on LiteRT.

The contract is `contract.json` in a zip archive appended to the file, as TensorFlow Lite's metadata appends labels, so
other programs read the file. The archive also has the SHA-256 of the net, because LiteRT does not check it.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgekit.contract import Contract, channel_count
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.preprocess import FloatArray, ImageU8

_CONTRACT, _NET_SHA256 = "contract.json", "net.sha256"


class LiteRtEngine:
    """The `InferenceEngine` of a .tflite file with one image as input. It runs the images of a batch one by one."""

    def __init__(self, path: Path, intra_op_threads: int) -> None:
        """Load the file."""
        self._path = path
        net, self.contract = read(path)
        try:
            self._interpreter = Interpreter(model_content=net, num_threads=intra_op_threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise self._refusal(f"cannot be loaded by LiteRT ({error})") from error
        # An interpreter has one set of tensors.
        self._lock = threading.Lock()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        spec = self.contract.input
        height, width = spec.size_hw
        shapes = {
            (1, channel_count(spec.channels), height, width): False,
            (1, height, width, channel_count(spec.channels)): True,
        }
        shape = tuple(map(int, inputs[0]["shape"]))
        if len(inputs) != 1 or shape not in shapes or inputs[0]["dtype"] != np.dtype(spec.element_type):
            raise self._refusal(f"has an input {shape} that is not the contract's")
        rows = [tuple(map(int, output["shape"])) for output in outputs]
        if rows != [(1, len(self.contract.labels))]:
            raise self._refusal(f"has outputs {rows}, but its contract has {len(self.contract.labels)} labels")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._channels_last = shapes[shape]

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of input tensors (N, channels, H, W).

        Raises:
            InputError: The graph fails.
        """
        images = np.moveaxis(tensor, 1, -1) if self._channels_last else tensor
        try:
            return np.concatenate([self._infer_one(images[index : index + 1]) for index in range(len(images))])
        except (RuntimeError, ValueError) as error:
            raise self._refusal(f"fails in inference ({error})") from error

    def _infer_one(self, image: FloatArray | ImageU8) -> FloatArray:
        with self._lock:
            self._interpreter.set_tensor(self._input, image)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output).astype(np.float32)

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"model '{self._path}' {' '.join(reason.split())}: convert it again")


def read(path: Path) -> tuple[bytes, Contract]:
    """Return the net and the contract of a file.

    Raises:
        InputError: The file is missing or damaged, or has no contract.
    """
    content = require_file(path, "model").read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            document, sha256 = archive.read(_CONTRACT).decode(), archive.read(_NET_SHA256).decode()
            net = content[: min(entry.header_offset for entry in archive.infolist())]
        contract = Contract.from_json(document)
    except InputError as error:
        raise InputError(f"model '{path}': {error}") from error
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"model '{path}' is damaged or has no contract ({error}): convert it again") from error
    if hashlib.sha256(net).hexdigest() != sha256:
        raise InputError(f"model '{path}' is damaged: convert it again")
    return net, contract


def pack(net: bytes, contract: Contract) -> bytes:
    """Return the file of a net and its contract."""
    buffer = io.BytesIO(net)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in ((_CONTRACT, contract.to_json()), (_NET_SHA256, hashlib.sha256(net).hexdigest())):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()
