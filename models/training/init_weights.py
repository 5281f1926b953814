"""Weights to start a training from, in the place of random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoints.checkpoint import check_weights, load_checkpoint
from edgekit.models.nets.embedding_net import BODY_PREFIX
from edgekit.models.nets.registry import class_dimensions, plain_name


@dataclass(frozen=True)
class InitialWeights:
    """Parts of a state dict, and the checksum of the file they came from; what is missing starts at random."""

    state: Mapping[str, Tensor]
    sha256: str


def read_initial(path: Path, contract: Contract, say: Callable[[str], None]) -> InitialWeights:
    """Return what a checkpoint has for a net that `contract` describes.

    All of it where the labels are the same. With other labels, or when a plain classifier becomes a student in an
    embedding space or the other way round, all but the last layer, which cannot fit; `say` gets a line about it.

    Raises:
        InputError: It is no checkpoint, or one of another net.
    """
    checkpoint = load_checkpoint(path)
    own, new = checkpoint.contract.architecture, contract.architecture
    if plain_name(own) != plain_name(new):
        raise InputError(f"--init '{path}' is {own}'s, the net to train is {new}")
    try:
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"--init '{path}': {error}") from error
    if replace(checkpoint.contract.input, name="") != replace(contract.input, name=""):
        say(f"--init '{path}' was made for pictures in another form (size, colour order or scale) than it is shown now")
    if own == new and checkpoint.contract.labels == contract.labels:
        return InitialWeights(checkpoint.state, sha256_of(path))
    theirs, ours = ("" if plain_name(name) == name else BODY_PREFIX for name in (own, new))
    last = {theirs + name for name in class_dimensions(plain_name(own))}
    state = {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in checkpoint.state.items()
        if name.startswith(theirs) and name not in last
    }
    say(f"--init '{path}': all of {plain_name(new)} but its last layer, which starts at random")
    return InitialWeights(state, sha256_of(path))
