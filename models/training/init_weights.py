"""Weights of a checkpoint that a training starts from instead of random ones (`--init`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    """Part of a state dict, and the SHA-256 of its file; what is in neither `state` nor `rows` starts at random.

    `rows` has tensors of the last layer whose classes are those of another training; `dimensions` are their dimensions
    of classes. `known` are pairs (class of the new net, class in `rows`). `new_classes` start at random.
    """

    state: Mapping[str, Tensor]
    sha256: str
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)
    known: tuple[tuple[int, int], ...] = ()
    new_classes: tuple[str, ...] = ()

    def merged_into(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict `own` of a new net with these weights in place of its own."""
        result = {**own, **self.state}
        for name, tensor in self.rows.items():
            result[name] = own[name].clone()
            for new, old in self.known:
                result[name].select(self.dimensions[name], new).copy_(tensor.select(self.dimensions[name], old))
        return result


def read_initial_weights(path: Path, contract: Contract, notify: Callable[[str], None]) -> InitialWeights:
    """Return the tensors of a checkpoint that fit the net described by `contract`.

    If the labels are equal, these are all tensors. If the labels differ, the last layer keeps the rows of the classes
    that both have. If only one of the two nets has an embedding space, the last layer is left out. `notify` is called
    with a message about it.

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
    dimensions = class_dimensions(plain_name(old))
    last_layer = {old_prefix + name for name in dimensions}
    state = {
        new_prefix + name.removeprefix(old_prefix): tensor
        for name, tensor in checkpoint.state.items()
        if name.startswith(old_prefix) and name not in last_layer
    }
    labels = checkpoint.contract.labels
    known = [(index, labels.index(name)) for index, name in enumerate(contract.labels) if name in labels]
    if old == new == plain_name(new) and known:
        rows = {name: checkpoint.state[name] for name in dimensions}
        added = tuple(name for name in contract.labels if name not in labels)
        if added:
            notify(f"init '{path}': the last layer starts at random for the classes {', '.join(added)}")
        return InitialWeights(state, sha256_of(path), rows, dimensions, tuple(known), added)
    notify(f"init '{path}': {plain_name(new)} starts from it except for the last layer, which starts at random")
    return InitialWeights(state, sha256_of(path), new_classes=contract.labels)
