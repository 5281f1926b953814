"""Weights to start a training from, in the place of random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoint import load_checkpoint


@dataclass(frozen=True)
class InitialWeights:
    """A state dict, and the checksum of the file it came from."""

    state: Mapping[str, Tensor]
    sha256: str


def read_initial(path: Path, contract: Contract) -> InitialWeights:
    """Return a checkpoint's weights for a net that `contract` describes.

    Raises:
        InputError: It is no checkpoint, or one of another net or of other labels.
    """
    checkpoint = load_checkpoint(path)
    own = checkpoint.contract
    if own.architecture != contract.architecture:
        raise InputError(f"--init '{path}' is {own.architecture}'s, the net to train is {contract.architecture}")
    if own.labels != contract.labels:
        raise InputError(
            f"--init '{path}' knows the labels {', '.join(own.labels)}, the data has {', '.join(contract.labels)}"
        )
    return InitialWeights(checkpoint.state, sha256_of(path))
