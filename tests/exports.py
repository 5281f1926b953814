"""Export of a checkpoint without the options of `edgekit.export`, for tests of its parts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeAlias

from torch import nn

from edgekit.contract import Contract
from edgekit.export.targets import GENERIC, TARGETS
from edgekit.export.to_onnx import Exported, export_net, with_origin
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.model_loading import build_net

# Returns the net with its new labels, and its contract.
Relabel: TypeAlias = Callable[[Checkpoint], tuple[nn.Module, Contract]]


def export_checkpoint(
    path: Path, target: Path, relabel: Relabel | None = None, passes: Collection[str] = TARGETS[GENERIC].passes
) -> Exported:
    """Export a checkpoint to `target`."""
    checkpoint = load_checkpoint(path)
    net, contract = relabel(checkpoint) if relabel else (build_net(checkpoint), checkpoint.contract)
    return export_net(net, with_origin(contract, path), target, passes)
