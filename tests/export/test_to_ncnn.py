"""Export to ncnn: pnnx converts the exported graph, and a file of another net is refused."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.contract import Contract, OutputSpec
from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.errors import GateError, InputError
from edgekit.export import to_ncnn
from edgekit.export.run import export
from edgekit.export.targets import chosen_passes
from edgekit.export.to_onnx import Exported
from edgekit.export.verification.comparison import check_export
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.nets.grouped import set_training_progress
from edgekit.models.nets.registry import create_model
from tests.examples import examples
from tests.export.nets import Builder, after, contract_of, logits_of, random_nets


def with_contract(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    onnx.helper.set_model_props(model, {"edgekit": replace(contract, output=OutputSpec("logits")).to_json()})
    return model


@pytest.mark.slow
def test_an_export_answers_as_the_onnx_file_and_leaves_nothing_behind(
    checkpoint: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "out" / "model.ncnn"
    made = export(checkpoint, target)
    assert [path.name for path in target.parent.iterdir()] == ["model.ncnn"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scratch"]
    assert list(scratch.iterdir()) == []
    assert made.verification.max_abs_difference < 1e-4
    assert (made.size_bytes, made.opset) == (target.stat().st_size, None)
    assert made.cost.macs == exported.cost.macs
    crops = portrait_crops(exported.contract)
    ours, theirs = Classifier(target, 1), Classifier(exported.path, 1)
    np.testing.assert_allclose(ours.logits(crops), theirs.logits(crops), atol=1e-4)
    names = {"input": ours.contract.input, "output": ours.contract.output, "verified_level": None}
    assert replace(theirs.contract, **names) == ours.contract
    assert (ours.contract.input.name, ours.contract.output.name) == ("in0", "out0")

    # A second conversion of the same file gives the same bytes.
    again = to_ncnn.to_ncnn(onnx.load(exported.path))
    assert again == target.read_bytes()


@pytest.mark.slow
def test_a_net_with_learned_groups_keeps_its_zeros(contract: Contract, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = create_model("edgecnn-g-learned", len(contract.labels)).eval()
    set_training_progress(net, 1.0)
    path, target = tmp_path / "net.safetensors", tmp_path / "net.ncnn"
    save_checkpoint(path, Checkpoint(replace(contract, architecture="edgecnn-g-learned"), net.state_dict()))
    made = export(path, target)  # pnnx cannot convert the gather operations of a condensed net
    assert made.verification.max_abs_difference < 1e-3
    assert made.cost.macs > 40e6


def test_another_nets_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.ncnn"
    builder = Builder(0)
    builder.conv(8)
    builder.head()
    small = replace(contract_of(size_px=44), labels=("a", "b", "c"))
    path.write_bytes(to_ncnn.to_ncnn(with_contract(builder.model(small), small)))
    with pytest.raises(GateError):
        check_export(path, nn.Sequential(nn.Flatten(), nn.Linear(3 * 44 * 44, 3)), small)


@settings(max_examples=examples(12))
@given(random_nets(), st.sets(st.sampled_from(sorted(chosen_passes("a53")))))
def test_random_nets_answer_the_same_on_ncnn(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[Builder, Contract], names: set[str]
) -> None:
    net, contract = made
    rewritten, contract, _ = after(net.model(contract), contract, names)
    path = tmp_path_factory.mktemp("random") / "net.ncnn"
    path.write_bytes(to_ncnn.to_ncnn(with_contract(rewritten, contract)))
    shape = (3, *contract.input.size_hw, 1 if contract.crop.grayscale else 3)
    crops = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    np.testing.assert_allclose(Classifier(path, 1).logits(crops), logits_of(rewritten, contract), atol=1e-3)


def test_a_missing_pnnx_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(0)
    builder.head()
    contract = contract_of()
    model = with_contract(builder.model(contract), contract)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pnnx, which is not installed: pip install .*\[export,ncnn\]"):
        to_ncnn.to_ncnn(model)
