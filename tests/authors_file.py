"""Files as the EdgeCNN authors' code writes them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

_PARTS = {"expand": "conv0", "expand_norm": "norm0", "reduce": "conv1", "reduce_norm": "norm1"}


def save_as_authors(path: Path, net: nn.Module) -> Path:
    """Write the weights of an EdgeCNN under the authors' names."""

    def dense(match: re.Match[str]) -> str:
        place = f"{int(match[1]) + 1}_{int(match[2]) + 1}"
        return f"features.dense{place}.denselayer{place}.{_PARTS[match[3]]}."

    names = {name: re.sub(r"^blocks\.(\d+)\.(\d+)\.(\w+)\.", dense, name) for name in net.state_dict()}
    state = {names[name].replace("stem.", "features.conv0."): tensor for name, tensor in net.state_dict().items()}
    torch.save({"net": state}, path)
    return path
