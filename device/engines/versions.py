"""Versions of the libraries that the runtime uses."""

from __future__ import annotations

import platform
import sys

import cv2
import numpy as np
import onnxruntime

from edgekit import __version__


def versions() -> dict[str, str]:
    """Return the versions of edgekit, Python and the libraries by name; ncnn's only if this process uses ncnn."""
    ncnn = sys.modules.get("ncnn")
    return {
        "edgekit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        **({"ncnn": str(ncnn.__version__)} if ncnn else {}),
    }
