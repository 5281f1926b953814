"""The conformance tests of engines: conforming engines pass, and each broken rule is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.device import registry
from examples import engine_conformance as conformance
from examples.engine_conformance import CHECKS, Subject
from tests.device.engines import faulty_engines


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("engine", ["onnx", "ncnn"])
def test_own_engines_conform(tiny_model: Path, tiny_ncnn: Path, engine: str, check: Callable[[Subject], None]) -> None:
    check(Subject(engine, tiny_model if engine == "onnx" else tiny_ncnn, tiny_model))


@pytest.mark.parametrize(
    ("engine", "check"),
    [
        ("OtherLabels", "check_contract"),
        ("Imprecise", "check_agreement"),
        ("FirstRowForAll", "check_batches"),
        ("DoublePrecision", "check_agreement"),
        ("ChangesItsInput", "check_arrays"),
        ("SharesItsBuffer", "check_arrays"),
        ("WrongWithFourThreads", "check_threads"),
        ("OneInputForAllThreads", "check_callers"),
        ("OwnError", "check_damaged_files"),
        ("TwoLines", "check_damaged_files"),
    ],
)
def test_a_broken_rule_is_found(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, engine: str, check: str) -> None:
    monkeypatch.setattr(registry, "find", lambda *_: getattr(faulty_engines, engine))
    with pytest.raises((AssertionError, ValueError)):
        getattr(conformance, check)(Subject(engine, tiny_model, tiny_model))
