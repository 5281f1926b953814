"""The classifier: face crops in, logits out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.contract import GraphLevel
from edgekit.device.engines.engine import open_engine
from edgekit.device.engines.session import default_intra_op_threads
from edgekit.preprocess import FloatArray, ImageU8, to_input


class Classifier:
    """A model file ready to classify; everything it must know stands in the file's contract."""

    def __init__(
        self,
        path: Path,
        intra_op_threads: int | None = None,
        spinning: bool = False,
        level: GraphLevel = "all",
    ) -> None:
        """Load the model at `path`; threads default to `default_intra_op_threads`, the rest is `open_engine`'s.

        Raises:
            InputError: As `open_engine`.
        """
        self.path = path
        self.intra_op_threads = intra_op_threads or default_intra_op_threads()
        self._net = open_engine(path, self.intra_op_threads, spinning, level)
        self.contract = self._net.contract

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
        return self._net.infer(tensor)
