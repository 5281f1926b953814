"""Classes merged at export: the file returns the sums of the old probabilities, for each net and engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgekit.contract import Accuracy, Contract, LabelMap
from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.export.targets import chosen_passes
from edgekit.export.to_ncnn import export_net_to_ncnn
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.models.model_loading import MergedClasses, build_merged_net, build_net, contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import NETS, create_model
from edgekit.preprocess import FloatArray
from tests.exports import export_checkpoint

LABELS = ("angry", "happy", "sad", "fear", "neutral")
# Not in the order of the labels; "fear" is removed.
MERGES = LabelMap(("calm", "bad", "good"), (("neutral",), ("sad", "angry"), ("happy",)))


def _checkpoint(path: Path, name: str) -> Path:
    torch.manual_seed(0)
    contract = contract_for(name, LABELS, "any", gray=True)
    accuracy = (Accuracy("any", "test", "center-crop", 1, 2),)
    net = create_model(name, len(LABELS))
    if isinstance(net, EmbeddingNet):
        net.set_classes(torch.nn.functional.normalize(torch.randn(len(LABELS), net.class_vectors.shape[1]), dim=1), 20)
    contract = replace(contract, provenance=replace(contract.provenance, accuracy=accuracy))
    save_checkpoint(path, Checkpoint(contract, net.state_dict()))
    return path


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _sums(path: Path, crops: np.ndarray) -> FloatArray:  # type: ignore[type-arg]
    """Return the old net's probabilities without the removed class, summed for each new class."""
    checkpoint = load_checkpoint(path)
    logits = TorchClassifier(build_net(checkpoint), checkpoint.contract).logits(crops)
    kept = _softmax(logits[:, [0, 1, 2, 4]])
    return np.stack([kept[:, 3], kept[:, 2] + kept[:, 0], kept[:, 1]], axis=1)


@pytest.mark.parametrize("name", [*NETS, "mini-xception@24"])
def test_probabilities_are_added(name: str, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "start.safetensors", name)
    net, contract = build_merged_net(load_checkpoint(path), MERGES)
    assert contract.labels == ("calm", "bad", "good")
    assert contract.provenance.accuracy == ()
    assert contract.label_map == MERGES
    assert Contract.from_json(contract.to_json()) == contract
    crops = portrait_crops(contract)[:8]
    found = _softmax(TorchClassifier(net, contract).logits(crops))
    np.testing.assert_allclose(found, _sums(path, crops), atol=1e-5)


@pytest.mark.slow
def test_the_files_for_both_engines_give_the_sums(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "start.safetensors", "edgecnn@24")
    files = tmp_path / "merged.onnx", tmp_path / "merged.ncnn"
    export_checkpoint(path, files[0], lambda checkpoint: build_merged_net(checkpoint, MERGES))
    merged = build_merged_net(load_checkpoint(path), MERGES)
    export_net_to_ncnn(*merged, files[1], chosen_passes("generic"), "fp32")
    kinds = [node.op_type for node in onnx.load(files[0]).graph.node]
    after = kinds[max(index for index, kind in enumerate(kinds) if kind == "MatMul") + 1 :]
    assert after == ["Split", "Max", "Split", "Max", "Sub", "Clip", "Split", "ReduceLogSumExp", "Concat"]
    for file in files:
        classifier = Classifier(file)
        assert classifier.contract.labels == MERGES.labels
        crops = portrait_crops(classifier.contract)[:8]
        np.testing.assert_allclose(_softmax(classifier.logits(crops)), _sums(path, crops), atol=1e-4)


def test_labels_that_are_only_renamed_or_left_out_cost_nothing(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "start.safetensors", "mini-xception")
    net, contract = build_merged_net(load_checkpoint(path), LabelMap(("glad", "angry"), (("happy",), ("angry",))))
    assert not isinstance(net, MergedClasses)
    assert contract.labels == ("glad", "angry")
    crops = portrait_crops(contract)[:8]
    old = TorchClassifier(build_net(load_checkpoint(path)), load_checkpoint(path).contract).logits(crops)
    np.testing.assert_allclose(TorchClassifier(net, contract).logits(crops), old[:, [1, 0]], atol=1e-6)


@pytest.mark.parametrize("count", range(2, 10))
def test_logits_far_apart_are_added_as_exactly(count: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(count).normal(scale=100, size=(50, count)).astype(np.float32))
    found = MergedClasses(torch.nn.Identity(), [count - 1, 1])(logits).double().softmax(dim=1)
    old = logits.double().softmax(dim=1)
    expected = torch.stack([old[:, :-1].sum(dim=1), old[:, -1]], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    enormous = MergedClasses(torch.nn.Identity(), [count - 1, 1])(torch.full((1, count), 3e38))
    assert enormous.isfinite().all()
