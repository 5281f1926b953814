"""Weights of a checkpoint that a training starts from instead of random ones (`--init`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.model_loading import check_weights
from edgekit.models.nets.embedding_net import NET_PREFIX
from edgekit.models.nets.registry import class_dimensions, plain_name


@dataclass(frozen=True)
class InitialWeights:
    """Part of a state dict, and the SHA-256 of its file; tensors that are not in `state` start at random."""

    state: Mapping[str, Tensor]
    sha256: str


def read_initial_weights(path: Path, contract: Contract, notify: Callable[[str], None]) -> InitialWeights:
    """Return the tensors of a checkpoint that fit the net described by `contract`.

    If the labels are equal, these are all tensors. If the labels differ, or only one of the two nets has an embedding
    space, the last layer does not fit and is left out; `notify` is called with a message about it.

    Raises:
        InputError: The file is not a checkpoint, or is one of another net.
    """
    checkpoint = load_checkpoint(path)
    old, new = checkpoint.contract.architecture, contract.architecture
    if plain_name(old) != plain_name(new):
        raise InputError(f"init '{path}' is a checkpoint of {old}, but the net to train is {new}")
    try:
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"init '{path}': {error}") from error
    if replace(checkpoint.contract.input, name="") != replace(contract.input, name=""):
        notify(f"init '{path}' was trained on another input (size, colour order or scale) than this training uses")
    if old == new and checkpoint.contract.labels == contract.labels:
        return InitialWeights(checkpoint.state, sha256_of(path))
    old_prefix, new_prefix = ("" if plain_name(name) == name else NET_PREFIX for name in (old, new))
    last_layer = {old_prefix + name for name in class_dimensions(plain_name(old))}
    state = {
        new_prefix + name.removeprefix(old_prefix): tensor
        for name, tensor in checkpoint.state.items()
        if name.startswith(old_prefix) and name not in last_layer
    }
    notify(f"init '{path}': {plain_name(new)} starts from it except for the last layer, which starts at random")
    return InitialWeights(state, sha256_of(path))
