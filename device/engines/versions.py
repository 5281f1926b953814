"""The engines under the runtime: their versions and threads, for reports."""

from __future__ import annotations

import platform

import cv2
import numpy as np
import onnxruntime

from edgekit import __version__
from edgekit.device.engines import ncnn_engine


def set_opencv_threads(threads: int) -> None:
    """Let OpenCV use that many threads, at least 1, in this process."""
    cv2.setNumThreads(threads)


def versions() -> dict[str, str]:
    """Return the versions that decide what a result means, by name; ncnn's where a model of this process is its."""
    ncnn = ncnn_engine.version()
    return {
        "edgekit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        **({"ncnn": ncnn} if ncnn else {}),
    }
