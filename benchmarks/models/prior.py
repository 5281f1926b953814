"""Logit adjustment (arXiv 2007.07314): a trained net for classes of another frequency than in the training data.

A net trained on classes of different size prefers the frequent ones. Subtracting τ log prior from its logits (τ = 1)
makes it right equally often on all classes. The paper's loss, with τ log prior added to the logits during training,
differs from that only by a constant in the last layer's bias, which the training would learn to compensate. So the
constant is subtracted once after the training, and τ can be changed without training again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.nets.registry import class_dimensions
from edgekit.models.training.options import NetOptions
from edgekit.models.training.run import read_training_data
from edgekit.models.training.task import calibrated
from edgekit.preprocess import FloatArray
from edgekit.typed_json import convert

# Rarer classes count as this frequent.
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class PriorAdjustment:
    """Logit adjustment: `strength` times the logarithm of the classes' shares `prior` is subtracted from the logits."""

    strength: float
    prior: tuple[float, ...]


def adjustment_of(training: Mapping[str, Any]) -> PriorAdjustment | None:
    """Return the adjustment that a checkpoint records; None: there was none."""
    record = training.get("prior_adjustment")
    return None if record is None else convert(record, PriorAdjustment, "prior adjustment: field")


def adjust_and_calibrate(path: Path, options: NetOptions, strength: float) -> None:
    """Adjust the checkpoint of an uncalibrated training with these options, and calibrate it, unless it is adjusted."""
    checkpoint = load_checkpoint(path)
    if adjustment_of(checkpoint.training) is None:
        data = read_training_data(options)
        prior = class_prior(data.training, len(data.dataset.classes))
        checkpoint = adjusted(checkpoint, prior, strength, options.notify)
        save_checkpoint(path, calibrated(checkpoint, data.calibration))


def class_prior(part: ImageSet, classes: int) -> FloatArray:
    """Return the mean training target, float32 (classes,): of the target distributions, or else of the labels."""
    if part.targets is None:
        return (np.bincount(part.labels, minlength=classes) / len(part)).astype(np.float32)
    mean: FloatArray = part.targets.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


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
        raise InputError(f"the last layer of {architecture} has no bias: do not adjust it")
    return names[0]
