"""Temperature of a trained checkpoint, fitted on the validation images and folded into its last layer or scale."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace

import numpy as np
from torch import Tensor

from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.evaluation.calibration import fit_temperature
from edgekit.models.evaluation.evaluate import Evaluation, TorchClassifier, evaluate
from edgekit.models.model_loading import build_net
from edgekit.models.nets.embedding_net import LOGIT_SCALE
from edgekit.models.nets.registry import class_dimensions, plain_name
from edgekit.models.training.record import Calibration

# With fewer validation images the temperature fits their noise.
MIN_IMAGES = 20


def calibrated(checkpoint: Checkpoint, validation: ImageSet, notify: Notify = ignore_message) -> Checkpoint:
    """Return a checkpoint whose logits are divided by a temperature, fitted on the validation images.

    The last layer's weights and bias are divided, or the scale of the cosines in an embedding space, so that no
    prediction changes. The contract records the temperature.

    The checkpoint itself is returned if there are fewer than 20 validation images, if all or none of them are
    classified correctly (then no temperature is best), or if the net does not end in a linear layer.
    """
    before = _evaluated(checkpoint, validation)
    if len(validation) < MIN_IMAGES or before.correct in (0, before.total):
        reason = f"fewer than {MIN_IMAGES}" if len(validation) < MIN_IMAGES else "all of them are right or wrong"
        notify(f"not calibrated: {len(validation)} validation images, {reason}")
        return checkpoint
    temperature = fit_temperature(before.logits, before.truths)
    names = _scaled_tensors(checkpoint.contract.architecture)
    state = {name: value / temperature if name in names else value for name, value in checkpoint.state.items()}
    few = validation.subset(np.arange(min(len(validation), MIN_IMAGES)))
    after = _evaluated(replace(checkpoint, state=state), few).logits
    if not np.allclose(after, before.logits[: len(few)] / temperature, rtol=1e-3, atol=1e-3):
        notify(f"not calibrated: the last layer of {checkpoint.contract.architecture} is not linear")
        return checkpoint
    scaled = replace(before, logits=before.logits / np.float32(temperature))
    errors = [result.calibration.expected_error for result in (before, scaled)]
    record = asdict(Calibration(temperature, *errors))
    contract = replace(checkpoint.contract, temperature=temperature)
    notify(
        f"calibrated with temperature {temperature:.3f}, fitted on {before.total} validation images: "
        f"cross-entropy {before.loss:.3f} before, {scaled.loss:.3f} after; "
        f"calibration error {errors[0]:.3f} before, {errors[1]:.3f} after"
    )
    return Checkpoint(contract, state, {**checkpoint.training, "calibration": record})


def _scaled_tensors(architecture: str) -> Collection[str]:
    """Return the names of the tensors to which the logits are proportional."""
    return (LOGIT_SCALE,) if plain_name(architecture) != architecture else class_dimensions(architecture)


def uncalibrated(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of a checkpoint as they were before `calibrated`."""
    contract = checkpoint.contract
    names = _scaled_tensors(contract.architecture) if contract.temperature != 1 else ()
    return {name: value * contract.temperature if name in names else value for name, value in checkpoint.state.items()}


def _evaluated(checkpoint: Checkpoint, images: ImageSet) -> Evaluation:
    return evaluate(TorchClassifier(build_net(checkpoint), checkpoint.contract), images, "center-crop")
