"""Checkpoints: safetensors with the model-file contract in the header, the same document an exported model carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.contract import METADATA_KEY, Contract
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.checkpoints.tensorfile import read_tensors, write_tensors
from edgekit.models.nets.registry import create_model


@dataclass(frozen=True)
class Checkpoint:
    """Weights and everything needed to use them.

    `contract` is what an exported model will carry; `state` is the net's state dict; `training` says how the weights
    were made (recipe, seed, versions, checksums of the data).
    """

    contract: Contract
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    document = {"contract": json.loads(checkpoint.contract.to_json()), "training": checkpoint.training}
    write_tensors(path, checkpoint.state, METADATA_KEY, document)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: Not a safetensors file of edgekit's, or its contract is invalid.
    """
    require_file(path, "checkpoint")
    try:
        state, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(
            f"checkpoint '{path}' is no safetensors file ({error}): convert others with 'edgekit import'"
        ) from error
    if other := next((key for key in metadata if key.startswith(f"{METADATA_KEY}-")), None):
        hint = ": name it with --clip ('edgekit eval zero-shot --clip FILE')" if other.endswith("clip") else ""
        raise InputError(f"'{path}' is no classifier, but a file of the kind '{other}'{hint}")
    if METADATA_KEY not in metadata:
        raise InputError(f"checkpoint '{path}' has no edgekit contract: convert it with 'edgekit import'")
    try:
        document = json.loads(metadata[METADATA_KEY])
        contract = Contract.from_json(json.dumps(document["contract"]))
        training = document["training"]
        if not isinstance(training, dict):
            raise InputError("'training' is no table")
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"checkpoint '{path}' has no valid contract: {error}") from error
    return Checkpoint(contract, state, training)


def build_net(checkpoint: Checkpoint) -> nn.Module:
    """Return the net with the checkpoint's weights, in eval mode.

    Raises:
        InputError: The architecture is unknown, or the weights are another's; the message names the first difference.
    """
    check_weights(checkpoint)
    net = create_model(checkpoint.contract.architecture, len(checkpoint.contract.labels))
    net.load_state_dict(checkpoint.state)
    return net.eval()


def check_weights(checkpoint: Checkpoint) -> None:
    """Check that the weights are the architecture's, without memory for a net that may only be claimed.

    Raises:
        InputError: The architecture is unknown, or the weights are another's; the message names the first difference.
    """
    architecture = checkpoint.contract.architecture
    with torch.device("meta"):
        net = create_model(architecture, len(checkpoint.contract.labels))
    _check_shapes(net.state_dict(), checkpoint.state, architecture)


def load_weights(net: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Load a state dict strictly.

    Raises:
        InputError: A tensor is missing, surplus, or of another shape; the first one is named.
    """
    _check_shapes(net.state_dict(), state, architecture)
    net.load_state_dict(state)


def _check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], architecture: str) -> None:
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise InputError(f"the weights are not {architecture}'s: tensor '{name}' is missing")
        if name not in own:
            raise InputError(f"the weights are not {architecture}'s: it has no tensor '{name}'")
        if own[name].shape != state[name].shape:
            raise InputError(
                f"the weights are not {architecture}'s: tensor '{name}' has shape {list(state[name].shape)}, "
                f"expected {list(own[name].shape)}"
            )
