"""A classifier on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgekit.contract import Contract, ElementType, channel_count
from edgekit.device.engines.session import open_session, read_contract
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.text import one_line

_NODE_TYPES: dict[ElementType, str] = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


class OnnxRuntimeEngine:
    """The `InferenceEngine` of an .onnx file."""

    def __init__(self, path: Path, intra_op_threads: int, spinning: bool = False) -> None:
        """Load the file; see `edgekit.device.engines.engine.open_engine`."""
        self._path = path
        self._session = open_session(path, intra_op_threads, spinning)
        self.contract = read_contract(self._session, path)
        _check_graph(self._session, self.contract, path)

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of input tensors (N, channels, H, W).

        Raises:
            InputError: The graph fails.
        """
        try:
            outputs = self._session.run([self.contract.output.name], {self.contract.input.name: tensor})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            reason = one_line(str(error))
            raise InputError(f"model '{self._path}' fails in inference: export it again ({reason})") from error
        return np.asarray(outputs[0], np.float32)


def _check_graph(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    spec = contract.input
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if list(inputs) != [spec.name] or contract.output.name not in outputs:
        raise InputError(
            f"model '{path}': the contract names input '{spec.name}' and output '{contract.output.name}', "
            f"but the graph has {list(inputs)} and {list(outputs)}: export it again"
        )
    expected = [None, channel_count(spec.channels), *spec.size_hw]
    shape = inputs[spec.name].shape
    if len(shape) != 4 or any(
        isinstance(a, int) and b is not None and a != b for a, b in zip(shape, expected, strict=True)
    ):
        raise InputError(
            f"model '{path}': the contract's input shape {expected} is not the graph's {shape}: export it again"
        )
    if inputs[spec.name].type != _NODE_TYPES[spec.element_type]:
        raise InputError(
            f"model '{path}': the graph's input is {inputs[spec.name].type}, "
            f"the contract's {_NODE_TYPES[spec.element_type]}: export it again"
        )
    if isinstance(shape[0], int):
        raise InputError(f"model '{path}': the batch size is fixed at {shape[0]}: export it with a dynamic batch")
    classes = outputs[contract.output.name].shape
    if len(classes) != 2 or classes[1] != len(contract.labels):
        raise InputError(
            f"model '{path}': the contract has {len(contract.labels)} labels, but the graph's output is {classes}: "
            "export it with as many labels as classes"
        )
