"""Classes put together in a trained net: the probability of several is the sum of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekit.contract import Contract
from edgekit.models.checkpoints.checkpoint import Checkpoint, build_net, check_weights
from edgekit.models.nets.registry import class_dimensions

# How far below the largest logit of its image one is told apart: exp() of less is nothing in float32.
_FURTHEST = 80.0


class MergedClasses(nn.Module):
    """Logits (N, new classes) of a net's logits (N, old classes): log Σ exp over the old classes of each new one.

    They are logits up to a constant an image, which a softmax does not see. Nothing in it is a product, so that it
    stays in float32 where products become eight bits, and ncnn has each of its operations.
    """

    def __init__(self, net: nn.Module, sizes: Sequence[int]) -> None:
        """Take over `net`; `sizes` says how many of its classes, in their order, each new class has."""
        super().__init__()
        self.net = net
        self._sizes = list(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the new classes' logits of float images."""
        logits: Tensor = self.net(images)
        # ncnn does not shift what it takes exp() of.
        shifted = (logits - _largest(logits)).clamp_min(-_FURTHEST)
        parts = torch.split(shifted, self._sizes, dim=1)
        return torch.cat([part if part.shape[1] == 1 else part.logsumexp(dim=1, keepdim=True) for part in parts], dim=1)


def _largest(values: Tensor) -> Tensor:
    """Return (N, 1), the largest of each row, by comparing halves: pnnx converts no reduction to a maximum."""
    while (count := values.shape[1]) > 1:
        half = count // 2
        halves = torch.split(values, [half, half, count % 2] if count % 2 else [half, half], dim=1)
        larger = torch.maximum(halves[0], halves[1])
        values = torch.cat([larger, halves[2]], dim=1) if count % 2 else larger
    return values


def merged(checkpoint: Checkpoint, merges: Mapping[str, Sequence[str]]) -> tuple[nn.Module, Contract]:
    """Return a net that knows the new classes only, and its contract, without the accuracy of the old ones.

    Args:
        checkpoint: Of any classifier, with or without an embedding space.
        merges: New label → old labels, as `edgekit.models.data.merging.parse_merges` gives them.

    Raises:
        InputError: The checkpoint's architecture is unknown, or its weights are another's.
    """
    net = build_net(_with_labels(checkpoint, [old for group in merges.values() for old in group]))
    sizes = [len(group) for group in merges.values()]
    contract = replace(
        checkpoint.contract,
        labels=tuple(merges),
        provenance=replace(checkpoint.contract.provenance, accuracy=()),
    )
    return (MergedClasses(net, sizes).eval() if max(sizes) > 1 else net), contract


def _with_labels(checkpoint: Checkpoint, labels: Sequence[str]) -> Checkpoint:
    """Return the checkpoint with some of its labels only, in this order: its last layer has no others."""
    check_weights(checkpoint)  # those of the last layer are there and have the classes' dimension
    contract = checkpoint.contract
    places = torch.tensor([contract.labels.index(name) for name in labels])
    state = dict(checkpoint.state)
    for name, dimension in class_dimensions(contract.architecture).items():
        state[name] = state[name].index_select(dimension, places)
    return replace(checkpoint, contract=replace(contract, labels=tuple(labels)), state=state)
