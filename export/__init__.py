"""Export, quantisation, verification and cost of models: from torch to ONNX and ncnn.

This package is callable: `edgekit.export(...)` calls `edgekit.export.run.export`. The function is imported on the first
call. A function `edgekit.export` would have the same name as this package. The import order would then decide whether
the name means the function or the package.

    import edgekit
    from edgekit.export.targets import TARGETS

    exported = edgekit.export("model.safetensors", "model.onnx", target="a53")
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import edgekit.device  # noqa: F401 - limits OpenCV before a module imports it

if TYPE_CHECKING:
    from edgekit.export.to_onnx import Exported


class _CallableModule(ModuleType):
    """Type of the module `edgekit.export`; calling the module exports a model."""

    def __call__(self, *arguments: Any, **options: Any) -> Exported:
        """Export a model; see `edgekit.export.run.export` for options, result and errors."""
        from edgekit.export.run import export

        return export(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
