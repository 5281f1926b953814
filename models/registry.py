"""Nets by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgekit.errors import InputError
from edgekit.models.borrowed import mobilenetv2, mobilenetv3_small, shufflenetv2_x05
from edgekit.models.edgecnn import edgecnn, edgecnn_wide
from edgekit.models.grouped import edgecnn_g, edgecnn_g_condensed, edgecnn_g_learned
from edgekit.models.mini_xception import mini_xception

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


def model_names() -> tuple[str, ...]:
    """Return the names `create_model` knows."""
    return tuple(_NETS)


def create_model(name: str, num_classes: int) -> nn.Module:
    """Return a freshly initialised net: float images (N, 3, 44, 44) → logits (N, num_classes).

    Raises:
        InputError: No such name, fewer than one class, or the library the net comes from is not installed.
    """
    if name not in _NETS:
        raise InputError(f"model '{name}' is not known: choose one of {', '.join(_NETS)}")
    if num_classes < 1:
        raise InputError(f"a net needs at least one class, not {num_classes}")
    return _NETS[name](num_classes)


def parameter_count(net: nn.Module) -> int:
    """Return the number of trainable values of a net."""
    return sum(parameter.numel() for parameter in net.parameters())
