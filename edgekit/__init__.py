"""edgekit takes a small-input classifier from training to a Raspberry Pi.

    import edgekit

    model = edgekit.load_model("default")
    for result in edgekit.stream(source="demo"):
        print(result.faces.labels)

`import edgekit` loads the standard library only. Each name of `__all__` is imported when it is first used, together
with the libraries it needs: `load_model`, `stream`, `detect_faces` and `benchmark` need edgekit-pi[device], the
training functions [train], the export functions [export].
"""

from __future__ import annotations

import importlib as _importlib
import os as _os

from edgekit import errors as errors

# onnxruntime's own builds send usage data to their maker from 1.32 on; it looks at this when it is loaded, in this
# process or in one that this process starts.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0"

# Public name → module that defines it.
_PUBLIC = {
    "load_model": "edgekit.device.engines.classifier",
    "detect_faces": "edgekit.device.detection",
    "stream": "edgekit.device.pipeline.stream",
    "Classifier": "edgekit.device.engines.classifier",
    "Frame": "edgekit.device.frame",
    "Source": "edgekit.device.frame",
    "Detections": "edgekit.device.detections",
    "FrameResult": "edgekit.device.detections",
    "Detector": "edgekit.device.detection",
    "Tracker": "edgekit.device.tracking.tracker",
    "Sink": "edgekit.device.sink",
    "train": "edgekit.models.train",
    "distill": "edgekit.models.distill.run",
    "evaluate": "edgekit.models.evaluation.run",
    "export": "edgekit.export.run",
    "quantize": "edgekit.export.quantization.run",
    "verify": "edgekit.export.verification.run",
    "profile": "edgekit.export.profiling.run",
    "benchmark": "edgekit.device.benchmark.run",
    "compare": "edgekit.report.compare",
}

__all__ = ["__version__", "errors", *_PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    value = getattr(_importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names beside the module's own."""
    return sorted({*globals(), *__all__})
