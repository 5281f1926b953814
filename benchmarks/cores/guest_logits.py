"""Program inside the emulated system: it writes the logits of models for crops, by the runtime's engines.

    guest_logits.py CROPS.npy LOGITS.npy MODEL ...

LOGITS.npy receives float32 (models, crops, labels).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgekit.device.engines.engine import InferenceEngine, open_engine
from edgekit.device.engines.ncnn_engine import NcnnEngine
from edgekit.preprocess import FloatArray, ImageU8, to_input


def main(crops: str, logits: str, *models: str) -> None:
    """Classify the crops with each model."""
    images = np.load(crops)
    np.save(logits, np.stack([_logits(_opened(Path(model)), images) for model in models]))


def _opened(path: Path) -> InferenceEngine:
    # The trial of .ncnn files is a process of its own, which would not be emulated.
    return NcnnEngine(path, 1, checked=True) if path.suffix == ".ncnn" else open_engine(path, 1)


def _logits(engine: InferenceEngine, images: ImageU8) -> FloatArray:
    # One at a time, as in a run with one face.
    spec = engine.contract.input
    return np.concatenate([engine.infer(to_input(image[np.newaxis], spec)) for image in images])


if __name__ == "__main__":
    main(*sys.argv[1:])
