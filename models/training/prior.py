"""Logit adjustment (arXiv 2007.07314): a trained net for classes of another frequency than in the training data.

A net trained on classes of different size prefers the frequent ones. Subtracting τ log prior from its logits (τ = 1)
makes it right equally often on all classes. The paper's loss, with τ log prior added to the logits during training,
differs from that only by a constant in the last layer's bias, which the training would learn to compensate. So the
constant is subtracted once after the training, and τ can be changed without training again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate
from edgekit.models.model_loading import build_net
from edgekit.models.nets.registry import class_dimensions
from edgekit.models.training.options import MAX_PRIOR_STRENGTH
from edgekit.preprocess import FloatArray
from edgekit.typed_json import convert

_RECORD = "prior_adjustment"
# Rarer classes count as this frequent.
_LEAST_SHARE = 1e-4


def adjust_prior(
    path: Path, prior: FloatArray, strength: float, validation: ImageSet, notify: Notify = ignore_message
) -> Checkpoint:
    """Subtract `strength` times log `prior` (classes,) from the last layer's bias of the checkpoint at `path`.

    Call it before the calibration. Nothing is changed if the checkpoint is adjusted already, as after a resume.

    Args:
        path: The checkpoint.
        prior: Shares of the classes (classes,).
        strength: Factor of the logarithm.
        validation: Images on which the adjusted net is evaluated; their accuracy and loss replace those in the record
            `best`.
        notify: Called with messages for the user.

    Returns:
        The adjusted checkpoint.

    Raises:
        InputError: The file is not a checkpoint, or its net's last layer has no bias.
        StorageError: The file cannot be written.
    """
    checkpoint = load_checkpoint(path)
    if _RECORD in checkpoint.training:
        return checkpoint
    result = adjusted(checkpoint, prior, strength, notify)
    found = evaluate(TorchClassifier(build_net(result), result.contract), validation, "center-crop")
    figures = {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
    best = {**result.training.get("best", {}), **figures}
    result = replace(result, training={**result.training, "best": best})
    save_checkpoint(path, result)
    return result


def adjusted(checkpoint: Checkpoint, prior: FloatArray, strength: float, notify: Notify = ignore_message) -> Checkpoint:
    """Return an uncalibrated checkpoint, with `strength` times log `prior` (classes,) subtracted from its logits.

    Raises:
        InputError: The net's last layer has no bias.
    """
    name = class_bias(checkpoint.contract.architecture)
    state = {**checkpoint.state, name: checkpoint.state[name] - _offset(prior, strength)}
    record = {"strength": strength, "prior": [float(share) for share in prior]}
    shares = ", ".join(f"{label} {share:.1%}" for label, share in zip(checkpoint.contract.labels, prior, strict=True))
    notify(f"logits adjusted by {strength:g} times the logarithm of the training data's shares: {shares}")
    return replace(checkpoint, state=state, training={**checkpoint.training, _RECORD: record})


@dataclass(frozen=True)
class _Adjustment:
    """Record of an adjustment in a checkpoint."""

    strength: float
    prior: tuple[float, ...]


def without_adjustment(path: Path, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the uncalibrated weights `state` of the checkpoint at `path` without the adjustment that it records.

    Raises:
        InputError: The record is not valid.
    """
    record = _recorded(path, checkpoint)
    if record is None:
        return state
    name = class_bias(checkpoint.contract.architecture)
    return {**state, name: state[name] + _offset(np.array(record.prior, np.float32), record.strength)}


def recorded_prior(path: Path, checkpoint: Checkpoint) -> FloatArray | None:
    """Return the shares of the classes in the training of the checkpoint at `path`, float32 (classes,).

    Only trainings with a logit adjustment record the shares; for others, it is None.

    Raises:
        InputError: The record is not valid.
    """
    record = _recorded(path, checkpoint)
    return None if record is None else np.array(record.prior, np.float32)


def _recorded(path: Path, checkpoint: Checkpoint) -> _Adjustment | None:
    if _RECORD not in checkpoint.training:
        return None
    try:
        class_bias(checkpoint.contract.architecture)  # raises an error if the net has none
        record = convert(checkpoint.training[_RECORD], _Adjustment, "field")
        if not abs(record.strength) <= MAX_PRIOR_STRENGTH:
            raise InputError(f"strength is {record.strength}: expected {-MAX_PRIOR_STRENGTH} to {MAX_PRIOR_STRENGTH}")
        if len(record.prior) != len(checkpoint.contract.labels) or not all(0 <= share <= 1 for share in record.prior):
            raise InputError("prior is not a share of 0 to 1 for each label")
    except InputError as error:
        raise InputError(f"checkpoint '{path}' has no valid {_RECORD}: {error}") from error
    return record


def _offset(prior: FloatArray, strength: float) -> Tensor:
    logarithms = np.log(np.maximum(prior, _LEAST_SHARE))
    # Only differences count; without their mean the bias stays in its range.
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
