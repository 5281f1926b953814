"""Weights that others have trained: EfficientNet-Lite0's package, timm's downloads, or a file of a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.model_store import CHECKPOINT_SUFFIX
from edgekit.models.checkpoints.tensorfile import check_values, read_tensors
from edgekit.models.checkpoints.torch_file import is_dense, load_tensors
from edgekit.models.nets import efficientnet_lite0
from edgekit.models.nets.external_nets import TIMM_PREFIX, TORCHVISION_PREFIX, timm_input, timm_weights
from edgekit.models.nets.registry import class_dimensions, create_model

# The value of `--init` for the weights that come with a net.
PRETRAINED = "pretrained"
# Keys under which training programs store a state dict, the averaged weights first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InputValues:
    """The normalisation of a net's input, in R, G, B: `(pixel * scale - mean) / std`."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


def is_pretrained_net(architecture: str) -> bool:
    """Return whether a net is one that others have trained: EfficientNet-Lite0, timm's and torchvision's."""
    return architecture == efficientnet_lite0.NAME or architecture.startswith((TIMM_PREFIX, TORCHVISION_PREFIX))


def pretrained_input(architecture: str) -> InputValues:
    """Return the normalisation that the pretrained weights of a net need.

    Raises:
        InputError: timm does not state it.
    """
    if architecture == efficientnet_lite0.NAME:
        return InputValues(efficientnet_lite0.SCALE, efficientnet_lite0.MEAN, efficientnet_lite0.STD)
    if architecture.startswith(TIMM_PREFIX):
        return InputValues(1 / 255, *timm_input(architecture.removeprefix(TIMM_PREFIX)))
    return InputValues(1 / 255, *_IMAGENET)


def pretrained_state(architecture: str, source: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a net without its last layer.

    Args:
        architecture: The net, such as "efficientnet-lite0" or "timm/NAME".
        source: "pretrained" for the weights that come with the net, which timm downloads; or a .pth or .safetensors
            file with a state dict.

    Raises:
        InputError: The net comes without weights, or the file does not fit the net.
        TemporaryError: The download fails.
    """
    if source != PRETRAINED:
        state = _of_file(Path(source), architecture)
    elif architecture == efficientnet_lite0.NAME:
        state = efficientnet_lite0.imagenet_weights()
    elif architecture.startswith(TIMM_PREFIX):
        state = timm_weights(architecture.removeprefix(TIMM_PREFIX))
    else:
        raise InputError(f"{architecture} comes without weights: give a file of them as init")
    last_layer = class_dimensions(architecture)
    return {name: tensor for name, tensor in state.items() if name not in last_layer}


def _of_file(path: Path, architecture: str) -> dict[str, Tensor]:
    """Return the tensors of a file with the names of the net's; a file with other names has them in the same order.

    Raises:
        InputError: The file is damaged, or belongs to another net.
    """
    require_file(path, "init")
    document: Mapping[str, Any] = read_tensors(path)[0] if path.suffix == CHECKPOINT_SUFFIX else load_tensors(path)
    state = next((document[key] for key in _NESTED if isinstance(document.get(key), dict)), document)
    tensors = {str(name).removeprefix("module."): each for name, each in state.items() if is_dense(each)}
    with torch.device("meta"):
        own = create_model(architecture, 2).state_dict()
    if len(tensors) == len(own) and tensors.keys() != own.keys():
        tensors = dict(zip(own, tensors.values(), strict=True))
    last_layer = class_dimensions(architecture)
    for name, tensor in own.items():
        if name not in last_layer and (name not in tensors or tensors[name].shape != tensor.shape):
            found = f"shape {list(tensors[name].shape)}" if name in tensors else "no such tensor"
            raise InputError(
                f"init '{path}' does not fit {architecture}: tensor '{name}' has shape {list(tensor.shape)}, the file "
                f"has {found}; choose its net with --model timm/NAME or torchvision/NAME; 'edgekit import' converts a "
                "checkpoint of the EdgeCNN authors"
            )
    result = {name: tensors[name] for name in own if name in tensors}
    check_values(result, f"init '{path}'", "choose another file")
    return result
