"""The shipped model: small, known by name everywhere, as accurate as its card says, and right about the portrait."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli import cli
from edgekit.device.classify import Classifier
from edgekit.files import sha256_of
from edgekit.modelfiles import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.checkpoint import load_checkpoint

ONNX = resolve_model("default", (ONNX_SUFFIX,))
CHECKPOINT = resolve_model("default", (CHECKPOINT_SUFFIX,))
REQUIRED_TEN_CROP = 0.675


def _json(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_the_files_are_small_enough_to_ship() -> None:
    assert ONNX.stat().st_size < 2_000_000
    assert CHECKPOINT.stat().st_size < 2_000_000


def test_the_onnx_file_is_the_checkpoints_export(tmp_path: Path) -> None:
    contract = Classifier(ONNX).contract
    assert contract.provenance.checkpoint_sha256 == sha256_of(CHECKPOINT)
    document = _json("export", "default", "-o", tmp_path / "again.onnx")
    assert document["verification"]["max_abs_difference"] < 1e-4  # type: ignore[index]


def test_its_training_is_on_record() -> None:
    training = load_checkpoint(CHECKPOINT).training
    assert training["data_name"] == "fer2013"
    assert training["validation"] == "PublicTest"
    assert {"seed", "torch_version", "data_sha256", "recipe"} <= training.keys()


@pytest.mark.parametrize("protocol", ["center-crop", "ten-crop"])
def test_contract_and_card_say_what_eval_measures(shared: Path, protocol: str) -> None:
    document = _json("eval", "default", "--data", shared / "data/fer2013.tar.gz", "--protocol", protocol)
    stated = {entry.protocol: entry for entry in Classifier(ONNX).contract.provenance.accuracy}[protocol]
    assert isinstance(document["correct"], int)
    # Rounding differs between processors: an image or two near a tie may change sides.
    assert abs(document["correct"] - stated.correct) <= 3
    card = CHECKPOINT.with_suffix(".md").read_text()
    assert re.search(rf"\| {protocol} \| [\d.]+% \| {stated.correct} of {stated.total} \|", card)
    if protocol == "ten-crop":
        assert stated.correct / stated.total >= REQUIRED_TEN_CROP


def _share_of_happy_frames(*arguments: object) -> float:
    document = _json("run", "--source", "demo", *arguments)
    labels, frames = document["labels"], document["frames"]
    assert isinstance(labels, dict)
    assert isinstance(frames, int)
    return float(labels.get("happy", 0)) / frames


def test_the_portrait_is_happy_with_haar() -> None:
    assert _share_of_happy_frames("--detector", "haar") >= 0.8


def test_the_portrait_is_happy_with_yunet(shared: Path) -> None:
    model = shared / "data/yunet/face_detection_yunet_2026may.onnx"
    assert _share_of_happy_frames("--detector-model", model) >= 0.8
