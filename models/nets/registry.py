"""Nets by name: those of edgekit, `timm/NAME` for any of timm's, and `NAME@WIDTH` for one in an embedding space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.nets.edgecnn import edgecnn, edgecnn_wide
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.external_nets import TIMM_PREFIX, from_timm, mobilenetv2, mobilenetv3_small, shufflenetv2_x05
from edgekit.models.nets.grouped import edgecnn_g, edgecnn_g_condensed, edgecnn_g_learned
from edgekit.models.nets.mini_xception import mini_xception

_NETS: dict[str, Callable[[int], nn.Module]] = {
    "edgecnn": edgecnn,
    "edgecnn-g": edgecnn_g,
    "edgecnn-g-learned": edgecnn_g_learned,
    "edgecnn-g-condensed": edgecnn_g_condensed,
    "edgecnn-wide": edgecnn_wide,
    "mini-xception": mini_xception,
    "mobilenetv2": mobilenetv2,
    "mobilenetv3-small": mobilenetv3_small,
    "shufflenetv2-x0.5": shufflenetv2_x05,
}
_EMBEDDING_MARK = "@"
_MAX_EMBED_DIM = 65_536


def model_names() -> tuple[str, ...]:
    """Return the names `create_model` knows."""
    return tuple(_NETS)


def create_model(name: str, num_classes: int) -> nn.Module:
    """Return a freshly initialised net: float images (N, 3, 44, 44) → logits (N, num_classes).

    `NAME@WIDTH` is the `EmbeddingNet` of net NAME in a space of WIDTH dimensions.

    Raises:
        InputError: No such name, fewer than one class, or the library the net comes from is not installed.
    """
    if num_classes < 1:
        raise InputError(f"a net needs at least one class, not {num_classes}")
    plain, mark, width = name.partition(_EMBEDDING_MARK)
    if mark:
        embed_dim = _embed_dim(name, width)
        return EmbeddingNet(create_model(plain, embed_dim), num_classes, embed_dim)
    if name.startswith(TIMM_PREFIX):
        return from_timm(name.removeprefix(TIMM_PREFIX), num_classes)
    if name not in _NETS:
        raise InputError(f"model '{name}' is not known: choose one of {', '.join(_NETS)}, or {TIMM_PREFIX}NAME")
    return _NETS[name](num_classes)


def require_no_space(name: str) -> None:
    """Check that a name is that of a net alone: only a teacher can give a space its classes.

    Raises:
        InputError: The name says a space.
    """
    if _EMBEDDING_MARK in name:
        raise InputError(f"model '{name}' names an embedding space: name the net alone")


def plain_name(name: str) -> str:
    """Return the name of the net alone, in whatever space it is."""
    return name.partition(_EMBEDDING_MARK)[0]


def embedding_name(name: str, embed_dim: int) -> str:
    """Return what the net `name` is called in a space of that many dimensions.

    Raises:
        InputError: The name says a space already.
    """
    require_no_space(name)
    return f"{name}{_EMBEDDING_MARK}{embed_dim}"


def class_dimensions(name: str) -> dict[str, int]:
    """Return the tensors of a net's state whose shape depends on the number of classes: name → dimension.

    Raises:
        InputError: No such net.
    """
    with torch.device("meta"):
        few, more = (create_model(name, classes).state_dict() for classes in (2, 3))
    differing = {each: [a != b for a, b in zip(few[each].shape, more[each].shape, strict=True)] for each in few}
    return {each: differs.index(True) for each, differs in differing.items() if any(differs)}


def parameter_count(net: nn.Module) -> int:
    """Return the number of trainable values of a net."""
    return sum(parameter.numel() for parameter in net.parameters())


def _embed_dim(name: str, width: str) -> int:
    if not (width.isascii() and width.isdigit() and len(width) < 10 and 1 <= int(width) <= _MAX_EMBED_DIM):
        raise InputError(f"model '{name}' is not known: after {_EMBEDDING_MARK} stands a width, 1 to {_MAX_EMBED_DIM}")
    return int(width)
