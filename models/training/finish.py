"""What follows the training of a net: logit adjustment, calibration, and the check of a device's pixels."""

from __future__ import annotations

from dataclasses import replace

from edgekit.models.callbacks import Notify
from edgekit.models.data.balance import class_prior
from edgekit.models.training.calibrate import calibrate, remove_calibration
from edgekit.models.training.device_pixels import check_device_pixels
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.options import TrainingOptions
from edgekit.models.training.prior import adjust_prior
from edgekit.models.training.run import TrainingData, TrainingResult


def finish_net(
    result: TrainingResult, options: TrainingOptions, data: TrainingData, is_calibrated: bool, notify: Notify
) -> TrainingResult:
    """Adjust and calibrate the checkpoint as the options state, check its pixels, and return the result.

    Of several processes, only the first one does so.

    Raises:
        InputError: The checkpoint, the votes or a file of the data cannot be used.
        StorageError: The checkpoint cannot be written.
        GateError: A device would compute other pixels than the training; the checkpoint is kept.
    """
    if not is_first_process():
        return result
    path = result.checkpoint
    if options.prior_strength:
        prior = class_prior(data.training, len(data.dataset.classes))
        recorded = adjust_prior(path, prior, options.prior_strength, data.validation, notify).training["best"]
        figures = {name: recorded[name] for name in ("validation_accuracy", "validation_loss")}
        result = replace(result, best=replace(result.best, **figures))
        notify(f"after the adjustment: {result.validation_accuracy:.2%} on {result.validation_name}")
    if is_calibrated:
        result = replace(result, temperature=calibrate(path, data.calibration, notify))
    else:
        remove_calibration(path)
    check_device_pixels(path, data.validation, options.data, options.contempt, notify)
    return result
