"""Nets by name: edgekit's own, timm's as `timm/NAME`, torchvision's as `torchvision/NAME`.

`NAME@WIDTH` is a net in an embedding space.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.nets.edgecnn import edgecnn, edgecnn_wide
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.external_nets import (
    EFFICIENTNET_LITE0,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    efficientnet_lite0,
    from_timm,
    from_torchvision,
)
from edgekit.models.nets.grouped import edgecnn_g, edgecnn_g_condensed, edgecnn_g_learned
from edgekit.models.nets.mini_xception import MiniXception
from edgekit.models.nets.separable import SeparableNet

NETS: dict[str, Callable[[int], nn.Module]] = {
    "edgecnn": edgecnn,
    "edgecnn-g": edgecnn_g,
    "edgecnn-g-learned": edgecnn_g_learned,
    "edgecnn-g-condensed": edgecnn_g_condensed,
    "edgecnn-wide": edgecnn_wide,
    "mini-xception": MiniXception,
    "separable": SeparableNet,
    EFFICIENTNET_LITE0: efficientnet_lite0,
    # Parameters with 7 classes: 2,232,839 (arXiv 1801.04381), 1,525,031 (1905.02244) and 348,967 (1807.11164).
    "mobilenetv2": partial(from_torchvision, "mobilenet_v2"),
    "mobilenetv3-small": partial(from_torchvision, "mobilenet_v3_small"),
    "shufflenetv2-x0.5": partial(from_torchvision, "shufflenet_v2_x0_5"),
}
# Nets that end in a global pooling; EdgeCNN's pooling is made for 44 px.
_ANY_SIZE = {EFFICIENTNET_LITE0, "mini-xception", "separable", "mobilenetv2", "mobilenetv3-small", "shufflenetv2-x0.5"}
_SPACE_MARK = "@"
_MAX_EMBED_DIM = 65_536


def create_model(name: str, num_classes: int) -> nn.Module:
    """Return a net with random weights that maps float images (N, 3, 44, 44) to logits (N, num_classes).

    The name `NAME@WIDTH` creates an `EmbeddingNet` that wraps net NAME, in an embedding space of WIDTH dimensions.

    Raises:
        InputError: The name is not known, `num_classes` is below 1, or the net's library is not installed.
    """
    if num_classes < 1:
        raise InputError(f"a net needs at least one class, not {num_classes}")
    plain, mark, width = name.partition(_SPACE_MARK)
    if mark:
        embed_dim = _embed_dim(name, width)
        # The outputs of the wrapped net are not logits but the coordinates in the space.
        return EmbeddingNet(create_model(plain, num_classes=embed_dim), num_classes, embed_dim)
    if name.startswith(TIMM_PREFIX):
        return from_timm(name.removeprefix(TIMM_PREFIX), num_classes)
    if name.startswith(TORCHVISION_PREFIX):
        return from_torchvision(name.removeprefix(TORCHVISION_PREFIX), num_classes)
    if name not in NETS:
        others = f"{TIMM_PREFIX}NAME or {TORCHVISION_PREFIX}NAME"
        raise InputError(f"model '{name}' is not known: choose one of {', '.join(NETS)}, {others}")
    return NETS[name](num_classes)


def require_no_space(name: str) -> None:
    """Check that a net's name is not `NAME@WIDTH`: the class vectors of an embedding space come from a teacher only.

    Raises:
        InputError: The name has the form `NAME@WIDTH`.
    """
    if _SPACE_MARK in name:
        raise InputError(f"model '{name}' includes an embedding space: give the net's name alone")


def takes_any_size(name: str) -> bool:
    """Return whether a net takes images of 44 pixels and more; else it takes 44 only."""
    plain = plain_name(name)
    return plain in _ANY_SIZE or plain.startswith((TIMM_PREFIX, TORCHVISION_PREFIX))


def plain_name(name: str) -> str:
    """Return NAME for `NAME@WIDTH`; other names are returned unchanged."""
    return name.partition(_SPACE_MARK)[0]


def embedding_name(name: str, embed_dim: int) -> str:
    """Return the name of net `name` in an embedding space of `embed_dim` dimensions.

    Raises:
        InputError: The name already includes an embedding space.
    """
    require_no_space(name)
    return f"{name}{_SPACE_MARK}{embed_dim}"


def class_dimensions(name: str) -> dict[str, int]:
    """Return for each tensor of the last layer, by its name, the dimension that has the size `num_classes`.

    They are the dimensions in which nets for two and for three classes differ.

    Raises:
        InputError: The name is not known.
    """
    with torch.device("meta"):  # without memory for the weights
        of_two, of_three = (create_model(name, num_classes).state_dict() for num_classes in (2, 3))
    dimensions = {}
    for tensor_name, tensor in of_two.items():
        differs = [size != other for size, other in zip(tensor.shape, of_three[tensor_name].shape, strict=True)]
        if any(differs):
            dimensions[tensor_name] = differs.index(True)
    return dimensions


def parameter_count(net: nn.Module) -> int:
    """Return the number of parameters of a net."""
    return sum(parameter.numel() for parameter in net.parameters())


def _embed_dim(name: str, width: str) -> int:
    """Return the number in `width`, the part of the net's name after the mark."""
    # The length is checked before `int` reads a number of any length.
    if not (width.isascii() and width.isdigit() and len(width) < 10 and 1 <= int(width) <= _MAX_EMBED_DIM):
        raise InputError(f"model '{name}' is not known: expected a width, 1 to {_MAX_EMBED_DIM} after {_SPACE_MARK}")
    return int(width)
