"""`edgekit inspect` from the command line, with good, unusual and hostile files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgekit.contract import METADATA_KEY, Accuracy, Contract, Provenance
from edgekit.device.engines.engine import contract_in
from edgekit.files import sha256_of
from edgekit.install_hint import install_command
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.checkpoint import prompt_checkpoint, save_prompts
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import save_clip
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from tests.clips import random_clip
from tests.edgekit.onnx_faults import with_document

Run = Callable[..., tuple[int, str, str]]


def fields(text: str) -> dict[str, str]:
    """Return the lines `label  value` of the text output as a dictionary."""
    return dict(re.split(" {2,}", line, maxsplit=1) for line in text.splitlines() if line)


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """Replace the graph of a checkpoint's net, whose tracing takes seconds, by that of `tiny_model`."""
    from edgekit.export import to_onnx

    monkeypatch.setattr(to_onnx, "to_onnx", lambda *_: onnx.load(tiny_model))


def test_inspect_shows_the_contract_and_what_the_graph_holds(edgekit: Run, tiny_model: Path, tmp_path: Path) -> None:
    provenance = Provenance("faces", "ab" * 32, "1234567", "0.1.0", (Accuracy("faces", "test", "center-crop", 3, 4),))
    contract = replace(contract_in(tiny_model), provenance=provenance)
    path = with_document(tiny_model, tmp_path / "model.onnx", contract.to_json())
    code, out, err = edgekit("inspect", path)
    assert (code, err) == (0, "")
    assert (
        fields(out).items()
        >= {
            "sha256": sha256_of(path),
            "labels": "3: red, green, blue",
            "input": "'input' float32 (N, 3, 8, 8) rgb: (pixel * 0.00392157 - [0, 0, 0]) / [1, 1, 1]",
            "crop": "face box + 0% on every side, resized to 8x8, centre 8x8",
            "accuracy": "75.00% (3 of 4) on faces test, center-crop",
            "layers": "2: 1 GlobalAveragePool, 1 Flatten",
            "MACs": "0 at batch size 1",
        }.items()
    )


def test_json_gives_everything_in_one_document(edgekit: Run, tiny_model: Path) -> None:
    code, out, err = edgekit("inspect", tiny_model, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["sha256"] == sha256_of(tiny_model)
    assert Contract.from_json(json.dumps(document["contract"])) == contract_in(tiny_model)
    assert [layer["op_type"] for layer in document["layers"]] == ["GlobalAveragePool", "Flatten"]
    assert document["layers"][1]["output_shape"] == [1, 3]
    assert (document["opset"], document["ir_version"], document["parameters"], document["macs"]) == (17, 8, 0, 0)
    assert (document["weight_bytes"], document["read_bytes"], document["written_bytes"]) == (0, 768, 12)
    assert document["moved_bytes"] == 780
    assert "architecture" in err


def test_a_model_without_contract_is_shown_with_what_is_missing(edgekit: Run, tiny_model: Path, tmp_path: Path) -> None:
    path = with_document(tiny_model, tmp_path / "plain.onnx", None)
    code, out, err = edgekit("inspect", path)
    assert (code, err) == (0, "")
    assert fields(out)["contract"].startswith("none: missing labels, input (size, colour order, scale, mean, std)")
    assert fields(out)["layers"] == "2: 1 GlobalAveragePool, 1 Flatten"
    assert json.loads(edgekit("inspect", path, "--json")[1])["contract"] is None


def test_hostile_names_are_shown_harmlessly(edgekit: Run, tiny_model: Path, tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\nMACs          0\u202e"
    contract = replace(contract_in(tiny_model), labels=(hostile, "[/]", "c"), architecture=hostile)
    proto = onnx.load(tiny_model)
    proto.graph.node[0].name = hostile
    helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    code, out, err = edgekit("inspect", path)
    assert (code, err) == (0, "")
    assert all(char.isprintable() or char == "\n" for char in out)
    assert r"\x1b[2J\x1b]0;owned\x07[bold red]x[/] MACs" in fields(out)["labels"]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("MACs")] == ["0"]
    code, out, err = edgekit("inspect", path, "--json")
    assert code == 0
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert json.loads(out)["contract"]["labels"][0] == hostile


def test_without_the_extra_the_contract_is_still_shown(
    edgekit: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "edgekit.export.profiling.cost", raising=False)
    code, out, err = edgekit("inspect", tiny_model)
    assert (code, err) == (0, "")
    assert fields(out)["labels"] == "3: red, green, blue"
    assert fields(out)["layers"] == f"not counted: {install_command('export')}"
    document = json.loads(edgekit("inspect", tiny_model, "--json")[1])
    assert document["contract"]["architecture"] == "mean"
    assert document["layers"] is document["macs"] is document["opset"] is None


@pytest.mark.usefixtures("untraced")
def test_a_checkpoint_shows_its_training(edgekit: Run, tmp_path: Path) -> None:
    training = {"recipe_name": "fer2013", "recipe": {"epochs": 9}, "best": {"epoch": 8}, "seed": 3}
    net = create_model("mini-xception", 3)
    contract = contract_for("mini-xception", ("a", "b", "c"), "x", gray=True)
    path = tmp_path / "taught.safetensors"
    save_checkpoint(path, Checkpoint(contract, net.state_dict(), training))
    code, out, err = edgekit("inspect", path)
    assert (code, err) == (0, "")
    assert "recipe        fer2013, epoch 8 of 9, seed 3" in out.splitlines()
    assert json.loads(edgekit("inspect", path, "--json")[1])["training"] == training
    save_checkpoint(path, Checkpoint(contract, net.state_dict(), []))  # type: ignore[arg-type]
    code, out, err = edgekit("inspect", path)
    assert (code, out) == (2, "")
    assert "'training' is not an object" in err


def test_prompts_and_clips_are_shown_with_their_kind(edgekit: Run, tmp_path: Path) -> None:
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 24, context_length=40)
    clip = random_clip(config, seed=1)
    save_clip(tmp_path / "clip.safetensors", clip.model, config)
    net = PromptedClip(clip, PromptConfig(n_ctx=2, depth=2, cross_layer=1), {"sad": ("a", "b"), "glad": ("c",)})
    save_prompts(tmp_path / "prompts.safetensors", prompt_checkpoint(net, {"recipe_name": "hicropl"}))
    code, out, err = edgekit("inspect", tmp_path / "prompts.safetensors")
    assert (code, err) == (0, "")
    assert fields(out)["prompts"].startswith("hicropl, 2 tokens in each of 2 layers")
    assert fields(out)["CLIP"] == f"'{clip.source}' (sha256 {clip.sha256}), not in the file"
    assert fields(out)["labels"] == "2: sad, glad; 3 sentences in all"
    document = json.loads(edgekit("inspect", tmp_path / "prompts.safetensors", "--json")[1])
    assert document["prompts"]["config"]["n_ctx"] == 2
    code, out, err = edgekit("inspect", tmp_path / "clip.safetensors")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "is a CLIP, not a net: to evaluate it, run" in err


def test_a_contract_that_contradicts_its_graph_is_shown_with_both(
    edgekit: Run, tiny_model: Path, tmp_path: Path
) -> None:
    contract = contract_in(tiny_model)
    size_hw = (16, 16)
    crop = replace(contract.crop, resize_hw=size_hw, center_crop_hw=size_hw)
    wrong = replace(contract, labels=("a", "b"), input=replace(contract.input, size_hw=size_hw), crop=crop)
    path = with_document(tiny_model, tmp_path / "wrong.onnx", wrong.to_json())
    code, out, err = edgekit("inspect", path)
    assert (code, fields(out)["labels"], len(err.splitlines())) == (1, "2: a, b", 1)
    code, document, _ = edgekit("inspect", path, "--json")
    shown = json.loads(document)["contradictions"]
    assert (code, len(shown)) == (1, 2)
    assert all(text in out for text in shown)
    code, _, err = edgekit("run", "--model", path, "--source", "demo", "--detector", "none")
    assert (code, err) == (2, f"edgekit: error: model '{path}': {shown[0]}\n")
