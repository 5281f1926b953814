"""Opening of model files: engine settings, and one-line errors for unusable files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import NodeProto, TensorProto, helper

from edgekit.contract import Contract
from edgekit.device.engines.session import available_processors, default_intra_op_threads, open_session, read_contract
from edgekit.errors import InputError
from edgekit.model_store import DEVICE_SUFFIXES, resolve_model
from tests.edgekit.onnx_faults import with_document


def test_settings_reach_the_engine(tiny_model: Path) -> None:
    options = open_session(tiny_model, intra_op_threads=3).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(("machine", "threads"), [("x86_64", 1), ("aarch64", 3)])
def test_the_default_is_one_thread_on_a_pc_and_every_allowed_processor_on_a_board(
    monkeypatch: pytest.MonkeyPatch, machine: str, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5})
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert default_intra_op_threads() == threads
    assert available_processors() == 3


def test_too_little_memory_is_temporary() -> None:
    model = resolve_model("default", DEVICE_SUFFIXES)
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from edgekit.device.engines.classifier import Classifier
from edgekit.errors import TemporaryError
model = Classifier(Path(sys.argv[1]), 1)
size_hw = model.contract.input.size_hw
crops = np.zeros((200, *size_hw, 3), np.uint8)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
tensors = crops.size * 4
resource.setrlimit(resource.RLIMIT_AS, (used + tensors + (10 << 20), resource.RLIM_INFINITY))
try:
    model.probabilities(crops)
except TemporaryError as error:
    print(error.exit_code)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(model.probabilities(crops[:2]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, timeout=100)
    assert done.stdout == "75\n(2, 7)\n", done.stderr


def save(node: NodeProto, inputs: list[str], path: Path) -> Path:
    """Write a model of one node."""
    tensors = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in names] for names in (inputs, "y")
    ]
    graph = helper.make_graph([node], "net", *tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def test_what_is_no_model_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    text, half = tmp_path / "text.onnx", tmp_path / "half.onnx"
    text.write_text("this is text, not a model\nat all\n")
    half.write_bytes(tiny_model.read_bytes()[:-100])
    operator = save(helper.make_node("Levitate", ["x"], ["y"], domain="nowhere"), ["x"], tmp_path / "operator.onnx")
    for path in (text, half, operator, tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError) as caught:
            open_session(path, 1)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_contract_is_read_from_the_file_also_a_later_minor_one(tiny_model: Path, tmp_path: Path) -> None:
    contract = read_contract(open_session(tiny_model, 1), tiny_model)
    assert contract.labels == ("red", "green", "blue")
    changed = replace(contract, labels=("a", "b", "c"))
    later = json.dumps(json.loads(changed.to_json()) | {"schema": "1.9", "novelty": 1})
    path = with_document(tiny_model, tmp_path / "other.onnx", later)
    assert read_contract(open_session(path, 1), path) == Contract.from_json(later)


@pytest.mark.parametrize("document", [None, "", "{}", '{"schema": "9.0"}'])
def test_a_missing_or_invalid_contract_names_the_file(tiny_model: Path, tmp_path: Path, document: str | None) -> None:
    path = with_document(tiny_model, tmp_path / "odd.onnx", document)
    with pytest.raises(InputError) as caught:
        read_contract(open_session(path, 1), path)
    assert str(path) in str(caught.value)


def test_the_engine_keeps_no_record_of_its_user(tiny_model: Path, tmp_path: Path) -> None:
    # The telemetry of some onnxruntime builds writes a user id to a file and records each session.
    imports = "from pathlib import Path; from edgekit.device.engines.session import open_session"
    code = f"{imports}; open_session(Path({str(tiny_model)!r}), 1)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | {"HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []
