"""The exported ONNX file: its logits and its content."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import edgekit
from edgekit.contract import METADATA_KEY, Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.export.to_onnx import Exported, to_onnx
from edgekit.files import sha256_of
from edgekit.models.nets.edgecnn import EdgeCNN, EdgeCNNConfig
from edgekit.models.nets.grouped import GatherGroupConv2d, LearnedGroupConv2d
from edgekit.preprocess import to_tensor
from tests.export.conftest import stir

SMALL = EdgeCNNConfig(num_classes=3, stem_channels=16, layers_per_block=(1, 1, 1))


@pytest.fixture(scope="module")
def model(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.path)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_file_answers_as_the_net_does_for_any_batch(exported: Exported, edgecnn: nn.Module, batch: int) -> None:
    images = np.random.default_rng(batch).normal(size=(batch, 3, 44, 44)).astype(np.float32)
    (logits,) = ort.InferenceSession(exported.path).run(["logits"], {"image": images})
    with torch.no_grad():
        expected = edgecnn(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_old_runtimes_can_read_it(model: onnx.ModelProto, exported: Exported) -> None:
    assert model.ir_version == exported.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", exported.opset)]
    assert exported.opset <= 21
    assert not model.functions
    onnx.checker.check_model(model, full_check=True)


def test_the_file_carries_the_checkpoints_contract_and_where_it_came_from(
    model: onnx.ModelProto, exported: Exported, contract: Contract, checkpoint: Path
) -> None:
    (entry,) = model.metadata_props
    assert entry.key == METADATA_KEY
    read = Contract.from_json(entry.value)
    assert read == exported.contract
    assert read.provenance.checkpoint_sha256 == sha256_of(checkpoint)
    assert read.provenance.edgekit_version == edgekit.__version__
    assert read.verified_level == "all"
    assert replace(read, provenance=contract.provenance, verified_level=None) == contract


def test_layers_have_the_names_of_their_modules(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert names[:3] == ["stem", "stem_pool", "blocks.0.0.expand"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_nothing_of_this_machine_is_in_the_file(model: onnx.ModelProto, exported: Exported) -> None:
    content = exported.path.read_bytes()
    places = (Path(edgekit.__file__).parents[1], Path.home(), Path(sys.prefix), Path(sys.base_prefix))
    for trace in (*map(str, places), ".py", "torch", "pkg.", "site-packages"):
        assert trace.encode() not in content
    graph = model.graph
    assert not any(item.doc_string or item.metadata_props for item in (graph, *graph.node, *graph.input, *graph.output))


@pytest.mark.parametrize(
    ("make_conv", "shares", "is_grouped"),
    [
        (LearnedGroupConv2d, 1, True),
        pytest.param(LearnedGroupConv2d, 2, False, marks=pytest.mark.slow),
        (GatherGroupConv2d, 1, True),
    ],
    ids=["learned", "learned, half trained", "condensed"],
)
def test_grouped_nets_are_condensed_or_fold_masks_and_both_normalisations(
    contract: Contract, make_conv: type, shares: int, is_grouped: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    net = stir(EdgeCNN(SMALL, make_conv, shuffle_groups=4))
    for layer in net.modules():
        if isinstance(layer, LearnedGroupConv2d):
            layer.drop_connections(shares * layer.inputs_per_group)
        if isinstance(layer, GatherGroupConv2d):
            layer.index.copy_(torch.randperm(len(layer.index)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = to_onnx(net.train(), replace(contract, labels=("a", "b", "c")))
    assert not net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    kinds = {node.op_type for node in model.graph.node}
    assert not {"BatchNormalization", "Mul", "Expand"} & kinds
    assert ("Gather" in kinds) == is_grouped
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    crops = np.random.default_rng(0).integers(0, 256, (4, 44, 44, 1), np.uint8)
    classifier = Classifier(path)
    images = torch.from_numpy(to_tensor(crops, classifier.contract.input))
    with torch.no_grad():
        np.testing.assert_allclose(classifier.logits(crops), net(images).numpy(), atol=1e-5)
