"""Checkpoints of the EdgeCNN authors' released code, taken over into edgekit's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file, sha256_of
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_weights
from edgekit.models.checkpoints.provenance import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.training.state import load_tensors

_DENSE = re.compile(r"features\.dense(\d+)_(\d+)\.denselayer\d+_\d+\.(conv0|norm0|conv1|norm1)\.(.+)")
_PARTS = {"conv0": "expand", "norm0": "expand_norm", "conv1": "reduce", "norm1": "reduce_norm"}
# Channels of the last dense layer's output, by which the authors' two nets are told apart.
_ARCHITECTURES = {8: "edgecnn", 16: "edgecnn-wide"}


def import_authors_checkpoint(path: Path, labels: tuple[str, ...], dataset_name: str, gray: bool) -> Checkpoint:
    """Read a checkpoint the authors' code saved (a dictionary with the state dict under `net`).

    Args:
        path: The file, usually `*.t7`.
        labels: Class names in the order of the net's outputs.
        dataset_name: What the net was trained on.
        gray: Whether it was trained on gray pictures (FER-2013) or colour ones (RAF-DB).

    Raises:
        InputError: The file is damaged, asks to run code, is of another net, or has another number of classes.
    """
    require_file(path, "checkpoint")
    document = load_tensors(path)
    state = document.get("net")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"'{path}' has no tensors under 'net': it is no checkpoint of the EdgeCNN authors")
    renamed = {_renamed(name): tensor for name, tensor in state.items()}
    architecture = _architecture(renamed, path)
    classes = len(renamed["classifier.weight"])
    if classes != len(labels):
        raise InputError(f"'{path}' has {classes} classes, but {len(labels)} labels were given: pass --labels")
    load_weights(create_model(architecture, classes), renamed, architecture)
    training: dict[str, Any] = {"imported_from_sha256": sha256_of(path)}
    return Checkpoint(contract_for(architecture, labels, dataset_name, gray), renamed, training)


def _renamed(name: str) -> str:
    name = name.removeprefix("module.")
    if match := _DENSE.fullmatch(name):
        block, layer, part, rest = match.groups()
        return f"blocks.{int(block) - 1}.{int(layer) - 1}.{_PARTS[part]}.{rest}"
    return name.replace("features.conv0.", "stem.")


def _architecture(state: Mapping[str, Tensor], path: Path) -> str:
    bias = state.get("blocks.0.0.reduce.bias")
    architecture = _ARCHITECTURES.get(len(bias)) if bias is not None else None
    if architecture is None or "classifier.weight" not in state:
        raise InputError(f"'{path}' is not EdgeCNN's: its tensors begin with '{min(state, default='')}'")
    return architecture
