"""A classifier on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgekit.contract import Contract, ElementType, channel_count
from edgekit.device.engines.session import open_session, read_contract, run_session
from edgekit.errors import EdgekitError, InputError
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.text import counted, one_line

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
        if found:
            raise InputError(f"model '{path}': {found[0]}")

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits or features (N, labels or features) of input tensors (N, channels, H, W).

        Raises:
            InputError: The graph fails, or does not return one row per image.
            TemporaryError: As `run_session`.
        """
        return self._checked(self._run([self.contract.output.name], tensor)[0], len(tensor))

    def infer_with_distance(self, tensor: FloatArray | ImageU8) -> tuple[FloatArray, FloatArray]:
        """Return `infer`'s logits and the distances (N,) of `Contract.distance`, which must not be None.

        Raises:
            InputError, TemporaryError: As `infer`.
        """
        assert self.contract.distance is not None
        output, distances = self._run([self.contract.output.name, self.contract.distance.name], tensor)
        return self._checked(output, len(tensor)), np.asarray(distances, np.float32)

    def _run(self, names: list[str], tensor: FloatArray | ImageU8) -> list[Any]:
        try:
            return run_session(self._session, self._path, names, {self.contract.input.name: tensor})
        except EdgekitError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            reason = one_line(str(error))
            raise InputError(f"model '{self._path}' fails in inference: export it again ({reason})") from error

    def _checked(self, output: Any, images: int) -> FloatArray:
        logits = np.asarray(output, np.float32)
        has_labels = self.contract.output.meaning == "logits"
        if logits.shape != (images, len(self.contract.labels) if has_labels else logits.shape[-1]):
            raise InputError(
                f"model '{self._path}' returns {_size(logits.shape)} values for {counted(images, 'image')} and "
                f"{counted(len(self.contract.labels), 'label')}: export it with a dynamic batch"
            )
        return logits


def contradictions(session: ort.InferenceSession, contract: Contract) -> list[str]:
    """Return one line for each statement of a contract that the graph contradicts, with both values and the cure."""
    spec = contract.input
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    named = [contract.output.name, *([contract.distance.name] if contract.distance else [])]
    if list(inputs) != [spec.name] or not outputs.keys() >= set(named):
        return [
            f"the contract names input '{spec.name}' and output {', '.join(map(repr, named))}, "
            f"but the graph has {list(inputs)} and {list(outputs)}: export it again"
        ]
    node, output = inputs[spec.name], outputs[contract.output.name]
    found = []
    expected = [None, channel_count(spec.channels), *spec.size_hw]
    if len(node.shape) != 4 or any(
        isinstance(a, int) and b is not None and a != b for a, b in zip(node.shape, expected, strict=True)
    ):
        found.append(f"the contract's input shape {expected} is not the graph's {node.shape}: export it again")
    elif isinstance(node.shape[0], int):
        found.append(f"the batch size is fixed at {node.shape[0]}: export it with a dynamic batch")
    if node.type != _NODE_TYPES[spec.element_type]:
        kind = _NODE_TYPES[spec.element_type]
        found.append(f"the graph's input is {node.type}, the contract's {kind}: export it again")
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


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
