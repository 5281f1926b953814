"""The classifier: face crops in, logits out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgekit.contract import Contract, ElementType, channel_count
from edgekit.device.session import GraphOptimization, default_intra_op_threads, open_session, read_contract
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8, to_input

_NODE_TYPES: dict[ElementType, str] = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


class Classifier:
    """A model file ready to classify; everything it must know stands in the file's contract."""

    def __init__(
        self,
        path: Path,
        intra_op_threads: int | None = None,
        spinning: bool = False,
        level: GraphOptimization = "all",
    ) -> None:
        """Load the model at `path`; threads default to `default_intra_op_threads`, the rest is `open_session`'s.

        Raises:
            InputError: The file cannot be loaded, has no valid contract, or contract and graph disagree.
        """
        self.path = path
        self.intra_op_threads = intra_op_threads or default_intra_op_threads()
        self._session = open_session(path, self.intra_op_threads, spinning, level)
        self.contract = read_contract(self._session, path)
        _check_graph(self._session, self.contract, path)

    def logits(self, crops: ImageU8) -> FloatArray:
        """Return the logits (N, labels) of crops: uint8 (N, H, W, 1 or 3), N may be 0.

        See `edgekit.preprocess.crop_face`, which makes them.
        """
        if len(crops) == 0:
            return np.zeros((0, len(self.contract.labels)), np.float32)
        return self.infer(to_input(crops, self.contract.input))

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, labels) of the net's own input (N, channels, H, W), see `preprocess.to_input`.

        Raises:
            InputError: The graph fails on it.
        """
        try:
            outputs = self._session.run([self.contract.output.name], {self.contract.input.name: tensor})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise InputError(f"model '{self.path}' fails while it classifies: export it again ({error})") from error
        return np.asarray(outputs[0], np.float32)


def _check_graph(session: ort.InferenceSession, contract: Contract, path: Path) -> None:
    spec = contract.input
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if list(inputs) != [spec.name] or contract.output.name not in outputs:
        raise InputError(
            f"model '{path}': the contract names input '{spec.name}' and output '{contract.output.name}', "
            f"the graph has {list(inputs)} and {list(outputs)}: export it again"
        )
    expected = [None, channel_count(spec.channels), *spec.size_hw]
    shape = inputs[spec.name].shape
    if len(shape) != 4 or any(
        isinstance(a, int) and b is not None and a != b for a, b in zip(shape, expected, strict=True)
    ):
        raise InputError(f"model '{path}': the contract's input shape {expected} is not the graph's {shape}")
    if inputs[spec.name].type != _NODE_TYPES[spec.element_type]:
        raise InputError(
            f"model '{path}': the graph's input is {inputs[spec.name].type}, "
            f"the contract's {_NODE_TYPES[spec.element_type]}: export it again"
        )
    if isinstance(shape[0], int):
        raise InputError(f"model '{path}': batch size is fixed at {shape[0]}: export it with a dynamic batch")
    classes = outputs[contract.output.name].shape
    if len(classes) != 2 or classes[1] != len(contract.labels):
        raise InputError(
            f"model '{path}': the contract has {len(contract.labels)} labels, the graph's output is {classes}: "
            "export it with as many labels as classes"
        )
