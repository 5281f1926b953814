"""Fixtures: a contract, an untrained checkpoint with random BatchNorm values, and its export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from edgekit.export.to_onnx import Exported
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.nets.registry import create_model
from tests.exports import export_checkpoint
from tests.graph_cache import graph_cache as graph_cache


def stir(net: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights and statistics in each BatchNorm, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 2.0),
            ):
                assert tensor is not None
                with torch.no_grad():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return net.eval()


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(
        architecture="edgecnn",
        labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
        input=InputSpec("image", (44, 44), "rgb", 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        crop=CropSpec(margin=0.1, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44)),
        output=OutputSpec("logits"),
    )


@pytest.fixture(scope="session")
def edgecnn() -> nn.Module:
    torch.manual_seed(0)
    return stir(create_model("edgecnn", 7))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, contract: Contract, edgecnn: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    save_checkpoint(path, Checkpoint(contract, edgecnn.state_dict()))
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Exported:
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("exported") / "model.onnx")
