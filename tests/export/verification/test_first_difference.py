"""First layer at which two models differ: none in a correct export, the changed layer in a wrong one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekit.contract import Contract
from edgekit.device.engines.portrait import portrait_crops
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.targets import TARGETS
from edgekit.export.verification.first_difference import (
    SAME_FLOAT32,
    by_layer,
    file_results,
    first_difference,
    layer_differences,
    net_results,
)
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.model_loading import build_net
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import ImageU8, to_tensor
from tests.exports import export_checkpoint

from ..conftest import stir


@pytest.fixture(scope="module")
def crops(contract: Contract) -> ImageU8:
    return portrait_crops(contract)[:4]


@pytest.mark.parametrize("name", [pytest.param("edgecnn-g-learned", marks=[pytest.mark.slow]), "mini-xception@32"])
def test_in_a_good_export_no_layer_differs(name: str, contract: Contract, crops: ImageU8, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = stir(create_model(name, len(contract.labels)))
    if isinstance(net, EmbeddingNet):
        net.set_classes(nn.functional.normalize(torch.randn(len(contract.labels), 32)), 20.0)
    source = tmp_path / "net.safetensors"
    save_checkpoint(source, Checkpoint(replace(contract, architecture=name), net.state_dict()))
    exported = export_checkpoint(source, tmp_path / "net.onnx")
    results = net_results(build_net(load_checkpoint(source)), to_tensor(crops, contract.input))
    layers = layer_differences(by_layer(results, exported.path), exported.path, crops)
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(exported.path).graph.node)
    assert len(layers) >= convolutions > 10
    assert first_difference(layers, SAME_FLOAT32) is None, layers


@pytest.mark.parametrize("target", ["a53", "x86"])
def test_a_layer_that_a_rewrite_divided_does_not_differ(
    target: str,
    checkpoint: Path,
    edgecnn: nn.Module,
    exported: Exported,
    contract: Contract,
    crops: ImageU8,
    tmp_path: Path,
) -> None:
    path = export_checkpoint(checkpoint, tmp_path / "divided.onnx", passes=TARGETS[target].passes).path
    net = by_layer(net_results(edgecnn, to_tensor(crops, contract.input)), path)
    for reference in (net, file_results(exported.path, crops)):
        layers = layer_differences(reference, path, crops)
        assert {"blocks.2.6.expand", "classifier"} <= {layer.name for layer in layers}
        assert first_difference(layers, SAME_FLOAT32) is None, layers


@pytest.mark.parametrize("layer", ["stem", "blocks.1.2.expand", "blocks.2.6.reduce", "classifier"])
@pytest.mark.parametrize("against", ["net", "file"])
def test_the_layer_with_a_wrong_weight_is_named(
    layer: str, against: str, exported: Exported, edgecnn: nn.Module, contract: Contract, crops: ImageU8, tmp_path: Path
) -> None:
    model = onnx.load(exported.path)
    tensor = next(each for each in model.graph.initializer if each.name == f"{layer}.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), tensor.name))
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    if against == "net":
        reference = by_layer(net_results(edgecnn, to_tensor(crops, contract.input)), path)
    else:
        reference = file_results(exported.path, crops)
    first = first_difference(layer_differences(reference, path, crops), SAME_FLOAT32)
    assert first is not None
    assert first.name == layer
    assert 0.01 < first.relative < 0.1


def test_looking_at_a_net_leaves_no_hook(edgecnn: nn.Module, contract: Contract, crops: ImageU8) -> None:
    net_results(edgecnn, to_tensor(crops, contract.input))
    assert not any(module._forward_hooks for module in edgecnn.modules())
