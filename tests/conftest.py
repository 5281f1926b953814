"""Fixtures every room uses."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# A suite started in the background inherits "ignore SIGINT", and so would the children that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference vectors, or a skip that says how to name it."""
    folder = Path(os.environ.get("EDGEKIT_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data at '{folder}': set EDGEKIT_SHARED")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model file of a few bytes: the mean of each colour of an 8 x 8 crop is the logit of a label."""
    from onnx import TensorProto, helper, save

    from edgekit.contract import METADATA_KEY, Contract, CropSpec, InputSpec, OutputSpec

    contract = Contract(
        architecture="mean",
        labels=("red", "green", "blue"),
        input=InputSpec("input", (8, 8), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        crop=CropSpec(margin=0.0, grayscale=False, resize_hw=(8, 8), center_crop_hw=(8, 8)),
        output=OutputSpec("logits"),
    )
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["logits"]),
        ],
        "mean",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    save(model, path)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, or a skip where it may not be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: mount says {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
