"""The conformance tests of engines: conforming engines pass, and each broken rule is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.device import registry
from edgekit.testing import engine as conformance
from edgekit.testing.engine import CHECKS, Subject
from tests.edgekit.testing import faulty_engines


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


@pytest.mark.parametrize(
    ("words", "code"),
    [(["onnx", "--model", "{}"], 0), (["nobody", "--model", "{}"], 2), (["onnx", "--model", "nowhere"], 2)],
)
def test_the_exit_code_is_that_of_the_outcome(tiny_model: Path, words: list[str], code: int) -> None:
    given = [word.format(tiny_model) for word in words]
    command = [sys.executable, "-m", "edgekit.testing", "engine", *given, "--against", str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
