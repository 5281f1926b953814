"""The conformance tests of engines: a conforming engine passes, and each broken rule is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.testing import processes
from edgekit.testing.engine import CHECKS, run_checks
from edgekit.testing.subject import Subject, engine_factory

FAULTY = "tests.edgekit.testing.faulty_engines"


def conformance(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "edgekit.testing", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_an_engine_outside_any_group_conforms(tiny_model: Path) -> None:
    done = conformance("engine", f"{FAULTY}:Conforming", "--model", tiny_model, "--against", tiny_model)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["no model takes uint8 pixels: not tested", "the engine conforms"]
    assert [line.split()[0] for line in lines[1:-2]] == ["ok"] * len(CHECKS)


def takes_uint8(source: Path, target: Path) -> Path:
    """Write the graph of `tiny_model` for uint8 pixels, with the scaling inside the graph."""
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.node[0].input[0] = "scaled"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 / 255), "scale"))
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["pixels", "scale"], ["scaled"]))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["input"], ["pixels"], to=onnx.TensorProto.FLOAT))
    contract = Contract.from_json(model.metadata_props[0].value)
    changed = replace(contract, input=replace(contract.input, element_type="uint8"))
    model.metadata_props[0].value = changed.to_json()
    onnx.save(model, target)
    return target


def test_uint8_pixels_and_the_json_document(tiny_model: Path, tmp_path: Path) -> None:
    model = takes_uint8(tiny_model, tmp_path / "u8.onnx")
    done = conformance("engine", "onnx", "--model", model, "--against", tiny_model, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"]) == (0, True), done.stderr
    assert document["not_tested"] == ["no model takes float32 pixels: not tested"]
    (outcomes,) = document["models"].values()
    assert [outcome["check"] for outcome in outcomes] == [*CHECKS]
    assert "uint8 (N, 3, 8, 8)" in [outcome["text"] for outcome in outcomes]


@pytest.mark.parametrize(
    ("engine", "check", "text"),
    [
        ("OtherLabels", "contract", "the contract's labels"),
        ("Imprecise", "agreement", "logits are not the source's: logits differ by up to 1.00e-02"),
        ("FirstRowForAll", "batches", "those of single images in a batch of"),
        ("DoublePrecision", "batches", "infer returns float64"),
        ("ChangesItsInput", "input", "raises ValueError: assignment destination is read-only"),
        ("SharesItsBuffer", "output", "a later inference changes the array"),
        ("Noisy", "determinism", "logits of the same input differ"),
        ("WrongWithFourThreads", "threads", "those with 1 thread, with 4 threads"),
        ("OneInputForAllThreads", "callers", "results of 4 threads are those of other images"),
        ("OwnError", "damaged files", "the file 'empty' raises RuntimeError"),
        ("TwoLines", "damaged files", "is not one line"),
        ("Crashes", "damaged files", "the file 'empty' ends the process (-6): terminate called"),
        ("KeepsFiles", "release", "20 loaded engines leave 20 files open"),
        ("KeepsThreads", "release", "20 loaded engines leave "),
        ("KeepsMemory", "release", "KiB of memory in use"),
        ("TurnsCtrlCIntoItsOwn", "interruption", "Ctrl-C ends the program with 1"),
    ],
)
def test_a_broken_rule_is_found(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, engine: str, check: str, text: str
) -> None:
    subject = Subject(f"{FAULTY}:{engine}", tiny_model, tiny_model)
    monkeypatch.setattr("edgekit.testing.engine.CHECKS", {check: CHECKS[check]})
    (outcome,) = run_checks(subject)
    assert not outcome.passed
    assert text in outcome.text


def test_a_program_that_ctrl_c_does_not_end_is_ended(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_INTERRUPTION_S", 1)
    with pytest.raises(AssertionError, match="still runs 1 s after Ctrl-C"):
        CHECKS["interruption"](Subject(f"{FAULTY}:IgnoresCtrlC", tiny_model, tiny_model))


def test_a_failed_check_is_exit_code_1(tiny_model: Path) -> None:
    done = conformance("engine", f"{FAULTY}:Imprecise", "--model", tiny_model, "--against", tiny_model)
    assert done.returncode == 1
    assert "  FAILED agreement " in done.stdout
    assert done.stdout.endswith("\n1 check failed\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "--model", "x", "--against", "x"], "engine 'nobody' does not exist: use one of onnx, ncnn"),
        (
            ["json:Nothing", "--model", "x", "--against", "x"],
            "cannot be imported (AttributeError",
        ),
        (["onnx", "--model", "nowhere", "--against", "x"], "model 'nowhere' does not exist"),
        (["onnx", "--model", "x", "--model", "y", "--against", "x"], "give one --against per --model"),
    ],
)
def test_what_cannot_be_tested_is_refused_with_one_line(arguments: list[str], message: str) -> None:
    done = conformance("engine", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_checks_are_plain_functions(tiny_model: Path) -> None:
    subject = Subject("onnx", tiny_model, tiny_model)
    assert CHECKS["agreement"](subject).startswith("54 crops: logits differ by up to 0.0e+00")
    assert engine_factory("onnx") is engine_factory("edgekit.device.engines.onnxruntime_engine:OnnxRuntimeEngine")
    assert subject.images.dtype == np.float32
    with pytest.raises(InputError, match=r"engine 'no_such_module:Engine' cannot be imported \(ModuleNotFoundError"):
        engine_factory("no_such_module:Engine")
