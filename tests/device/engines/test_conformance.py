"""The engines of edgekit pass the conformance tests for engines of other packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.engine_conformance import CHECKS, Subject


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("engine", ["onnx", "ncnn"])
def test_own_engines_conform(tiny_model: Path, tiny_ncnn: Path, engine: str, check: Callable[[Subject], None]) -> None:
    check(Subject(engine, tiny_model if engine == "onnx" else tiny_ncnn, tiny_model))
