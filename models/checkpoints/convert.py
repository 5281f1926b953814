"""Checkpoints of the EdgeCNN authors' released code, with tensors renamed to those of `edgekit.models.nets.edgecnn`."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.checkpoints.torch_file import is_dense, load_tensors

_DENSE = re.compile(r"features\.dense(\d{1,2})_(\d{1,2})\.denselayer\d+_\d+\.(conv0|norm0|conv1|norm1)\.(.+)")
_PARTS = {"conv0": "expand", "norm0": "expand_norm", "conv1": "reduce", "norm1": "reduce_norm"}
# The net of each growth rate. The growth rate is the number of output channels of a dense layer.
_ARCHITECTURES = {8: "edgecnn", 16: "edgecnn-wide"}


def read_authors_checkpoint(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the architecture and the renamed state dict of a file saved by the authors' code.

    Raises:
        InputError: The file is damaged, contains code, or belongs to another net.
    """
    state = load_tensors(path).get("net")
    if not isinstance(state, dict) or not all(map(is_dense, state.values())):
        raise InputError(f"'{path}' has no dense tensors under 'net': it is not a checkpoint of the EdgeCNN authors")
    renamed = {_renamed(str(name)): tensor for name, tensor in state.items()}
    bias, weight = renamed.get("blocks.0.0.reduce.bias"), renamed.get("classifier.weight")
    architecture = _ARCHITECTURES.get(bias.numel()) if bias is not None else None
    if architecture is None or weight is None or weight.ndim != 2:
        raise InputError(f"'{path}' is not a checkpoint of EdgeCNN: its first tensor is '{min(renamed, default='')}'")
    return architecture, renamed


def _renamed(name: str) -> str:
    name = name.removeprefix("module.")
    if match := _DENSE.fullmatch(name):
        block, layer, part, rest = match.groups()
        return f"blocks.{int(block) - 1}.{int(layer) - 1}.{_PARTS[part]}.{rest}"
    return name.replace("features.conv0.", "stem.")
