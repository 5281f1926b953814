"""Graphs that the oldest supported onnxruntime can run: by the list and, if it is installed, by that runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.export.to_onnx import Exported
from edgekit.export.verification.deployable import device_faults

VARIABLE = "EDGEKIT_ONNXRUNTIME_1_20"


def graph(op_type: str, opset: int, domain: str = "", ir_version: int = 10, **attributes: object) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op_type, ["x"], ["y"], domain=domain, **attributes)],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


# Each graph, and whether onnxruntime 1.20 can run it.
CASES = {
    "relu 18": (graph("Relu", 18), True),
    "relu 21": (graph("Relu", 21), True),
    "relu 22": (graph("Relu", 22), False),
    "newer file form": (graph("Relu", 18, ir_version=11), False),
    "newer operator": (graph("Swish", 24), False),
    "made of others, no kernel of its own": (graph("Mish", 18), True),
    "operator of microsoft's": (graph("Gelu", 18, domain="com.microsoft"), True),
    "unknown operator": (graph("Frobnicate", 18, domain="com.microsoft"), False),
    "unknown set": (graph("Relu", 18, domain="com.example"), False),
    "no version": (graph("Relu", 1 << 40), False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_list_states_what_that_runtime_can_run(name: str) -> None:
    model, runs = CASES[name]
    assert (device_faults(model) == []) is runs, device_faults(model)


@pytest.mark.skipif(VARIABLE not in os.environ, reason="names a folder made by 'pip install --target'")
def test_that_runtime_loads_and_refuses_the_same(exported: Exported, tmp_path: Path) -> None:
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    environment = {**os.environ, "PYTHONPATH": os.environ[VARIABLE]}
    path = tmp_path / "model.onnx"
    for name, (model, runs) in (CASES | {"exported": (onnx.load(exported.path), True)}).items():
        path.write_bytes(model.SerializeToString())
        done = subprocess.run([sys.executable, "-c", code, path], env=environment, capture_output=True)
        assert (done.returncode == 0) is runs, (name, done.stderr)
    assert device_faults(onnx.load(exported.path)) == []


def test_tensors_outside_the_file_are_refused() -> None:
    model = graph("Relu", 18)
    tensor = model.graph.initializer.add(name="w", dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (fault,) = device_faults(model)
    assert "'w'" in fault
    assert "outside the file" in fault
