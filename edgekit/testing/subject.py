"""The subject of the tests of an engine: the engine, a model file, and the .onnx file that the model was made from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekit.contract import Contract
from edgekit.device import registry
from edgekit.device.engines.engine import InferenceEngine
from edgekit.device.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgekit.device.engines.portrait import portrait_crops
from edgekit.device.engines.tolerance import Tolerance, tolerance_for
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8, to_input

# The engine that a model is compared with; its own files are held to the tolerance of `edgekit verify` for them.
_REFERENCE = "onnx"


def engine_factory(engine: str) -> Callable[..., Any]:
    """Return an engine's factory; `engine` is a registered name, or `MODULE:CLASS`, registered or not.

    Raises:
        InputError: The name is not registered, or the module or its attribute does not exist.
    """
    module, separator, attribute = engine.partition(":")
    if not separator:
        return registry.find("engine", engine)
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the import runs code of another package
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"engine '{engine}' cannot be imported ({reason}): check the names and PYTHONPATH") from error
    return factory


@dataclass(frozen=True)
class Subject:
    """What the checks of `edgekit.testing.engine` are applied to.

    `engine` is a registered name, such as "tflite", or "MODULE:CLASS". `model` is a file of that engine, `against` the
    float32 .onnx file that it was made from.
    """

    engine: str
    model: Path
    against: Path

    def open(self, intra_op_threads: int = 1, path: Path | None = None) -> InferenceEngine:
        """Return the model, or another file, loaded by the engine."""
        loaded: InferenceEngine = engine_factory(self.engine)(path or self.model, intra_op_threads)
        return loaded

    @cached_property
    def loaded(self) -> InferenceEngine:
        """The model, loaded once."""
        return self.open()

    @cached_property
    def contract(self) -> Contract:
        """The model's contract, as the engine returns it."""
        return self.loaded.contract

    @cached_property
    def images(self) -> FloatArray | ImageU8:
        """Inputs of the model: 54 crops of a face."""
        return to_input(portrait_crops(self.contract), self.contract.input)

    @cached_property
    def reference(self) -> OnnxRuntimeEngine:
        """The source of the model on ONNX Runtime."""
        return OnnxRuntimeEngine(self.against, 1)

    @cached_property
    def expected(self) -> FloatArray:
        """Logits of the source for the same crops."""
        contract = self.reference.contract
        return self.reference.infer(to_input(portrait_crops(contract), contract.input))

    @property
    def tolerance(self) -> Tolerance:
        """How far logits may differ from the source's, as in `edgekit verify`."""
        return tolerance_for(self.contract.precision, "onnxruntime" if self.engine == _REFERENCE else self.engine)
