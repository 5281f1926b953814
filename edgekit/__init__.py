"""edgekit takes a small-input classifier from training to a Raspberry Pi.

    import edgekit

    model = edgekit.load_model("default")
    for result in edgekit.stream(source="demo"):
        print(result.faces.labels)

`import edgekit` loads the standard library only. Each name of `__all__` is imported when it is first used, together
with the libraries it needs: `load_model`, `stream`, `detect_faces`, `crop_photos` and `benchmark` need
edgekit-pi[device], the training functions [train], the export functions [export].
"""

from __future__ import annotations

import importlib as _importlib
import os as _os
from typing import TYPE_CHECKING

from edgekit import errors as errors

if TYPE_CHECKING:
    from edgekit.device.benchmark.run import benchmark as benchmark
    from edgekit.device.detection import Detector as Detector
    from edgekit.device.detection import detect_faces as detect_faces
    from edgekit.device.detections import Detections as Detections
    from edgekit.device.detections import FrameResult as FrameResult
    from edgekit.device.engines.classifier import Classifier as Classifier
    from edgekit.device.engines.classifier import load_model as load_model
    from edgekit.device.frame import Frame as Frame
    from edgekit.device.frame import Source as Source
    from edgekit.device.pipeline.stream import stream as stream
    from edgekit.device.sink import Sink as Sink
    from edgekit.device.teach.teach import teach as teach
    from edgekit.device.tracking.optical_flow import Tracker as Tracker
    from edgekit.export.foreign.import_onnx import import_onnx as import_onnx
    from edgekit.export.formats import benchmark_formats as benchmark_formats
    from edgekit.export.profiling.run import profile as profile
    from edgekit.export.run import export as export
    from edgekit.export.run import quantize as quantize
    from edgekit.export.verification.run import verify as verify
    from edgekit.models.data.crop import crop_photos as crop_photos
    from edgekit.models.distill.distillation import distill as distill
    from edgekit.models.evaluation.photos import evaluate_photos as evaluate_photos
    from edgekit.models.evaluation.run import evaluate as evaluate
    from edgekit.models.train import train as train
    from edgekit.report.compare import compare as compare

# onnxruntime's own builds send usage data to their vendor from 1.32 on. onnxruntime reads this variable when it is
# loaded, in this process or in a child process.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.3.0"
# Its name on package indexes.
DISTRIBUTION = "edgekit-pi"

# The module that defines each public name.
_PUBLIC = {
    "load_model": "edgekit.device.engines.classifier",
    "detect_faces": "edgekit.device.detection",
    "teach": "edgekit.device.teach.teach",
    "stream": "edgekit.device.pipeline.stream",
    "Classifier": "edgekit.device.engines.classifier",
    "Frame": "edgekit.device.frame",
    "Source": "edgekit.device.frame",
    "Detections": "edgekit.device.detections",
    "FrameResult": "edgekit.device.detections",
    "Detector": "edgekit.device.detection",
    "Tracker": "edgekit.device.tracking.optical_flow",
    "Sink": "edgekit.device.sink",
    "train": "edgekit.models.train",
    "distill": "edgekit.models.distill.distillation",
    "evaluate": "edgekit.models.evaluation.run",
    "evaluate_photos": "edgekit.models.evaluation.photos",
    "crop_photos": "edgekit.models.data.crop",
    "benchmark_formats": "edgekit.export.formats",
    "import_onnx": "edgekit.export.foreign.import_onnx",
    "quantize": "edgekit.export.run",
    "verify": "edgekit.export.verification.run",
    "profile": "edgekit.export.profiling.run",
    "benchmark": "edgekit.device.benchmark.run",
    "compare": "edgekit.report.compare",
}

# `export` is not in `_PUBLIC`: function and subpackage would share one attribute, so the subpackage itself is callable.
__all__ = ["__version__", "errors", "export", *_PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name == "export":  # this subpackage can be called: see `__all__`
        return _importlib.import_module("edgekit.export")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    try:
        value = getattr(_importlib.import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        # Not an import statement: `edgekit.remote.program` sends every module that a statement names to the boards.
        missing = _importlib.import_module("edgekit.install_hint").missing_module(error)
        if missing is None:
            raise
        raise errors.InputError(missing) from error
    globals()[name] = value  # where Python finds it from now on, without a call of this function
    return value


def __dir__() -> list[str]:
    """Return the names of `__all__` and of the module's globals."""
    return sorted({*globals(), *__all__})
