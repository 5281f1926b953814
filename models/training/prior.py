"""Logit adjustment (arXiv 2007.07314): a trained net for classes of another frequency than in the training data.

A net trained on classes of different size prefers the frequent ones. Subtracting τ log prior from its logits (τ = 1)
makes it right equally often on all classes. The paper's loss, with τ log prior added to the logits during training,
differs from that only by a constant in the last layer's bias, which the training would learn to compensate. So the
constant is subtracted once after the training, and τ can be changed without training again.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint
from edgekit.models.nets.registry import class_dimensions
from edgekit.models.training.record import PriorAdjustment
from edgekit.preprocess import FloatArray

# Rarer classes count as this frequent.
_LEAST_SHARE = 1e-4


def adjusted(checkpoint: Checkpoint, prior: FloatArray, strength: float, notify: Notify = ignore_message) -> Checkpoint:
    """Return an uncalibrated checkpoint, with `strength` times log `prior` (classes,) subtracted from its logits.

    Raises:
        InputError: The net's last layer has no bias.
    """
    name = class_bias(checkpoint.contract.architecture)
    state = {**checkpoint.state, name: checkpoint.state[name] - adjustment(prior, strength)}
    record = asdict(PriorAdjustment(strength, tuple(float(share) for share in prior)))
    shares = ", ".join(f"{label} {share:.1%}" for label, share in zip(checkpoint.contract.labels, prior, strict=True))
    notify(f"logits adjusted by {strength:g} times the logarithm of the training data's shares: {shares}")
    return replace(checkpoint, state=state, training={**checkpoint.training, "prior_adjustment": record})


def adjustment(prior: FloatArray, strength: float) -> Tensor:
    """Return what is subtracted from the last layer's bias: float32 (classes,) with mean 0."""
    logarithms = np.log(np.maximum(prior, _LEAST_SHARE))
    return torch.tensor(strength * (logarithms - logarithms.mean()), dtype=torch.float32)


def class_bias(architecture: str) -> str:
    """Return the name of the last layer's bias.

    Raises:
        InputError: The net has none.
    """
    names = [name for name in class_dimensions(architecture) if name.endswith("bias")]
    if len(names) != 1:
        raise InputError(f"the last layer of {architecture} has no bias: leave prior-strength out")
    return names[0]
