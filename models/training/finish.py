"""What follows the training of a net: logit adjustment, calibration, and the check of a device's pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.device.imaging import as_frame, resize
from edgekit.errors import GateError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.balance import class_prior
from edgekit.models.data.originals import spread, stored_files
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate, with_contract_channels
from edgekit.models.model_loading import build_net
from edgekit.models.training.calibrate import calibrated, uncalibrated
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.options import NetOptions
from edgekit.models.training.prior import adjusted
from edgekit.models.training.record import TrainingRecord
from edgekit.models.training.run import TrainingData, TrainingResult
from edgekit.preprocess import center_crop, crop_image

# Images compared, evenly spread over the validation images.
_IMAGES = 64


def finish_net(result: TrainingResult, options: NetOptions, data: TrainingData) -> TrainingResult:
    """Adjust and calibrate the checkpoint as the options state, check its pixels, and return the result.

    Of several processes, only the first one does so. A training that is resumed after its end is not finished twice.

    Raises:
        InputError: The checkpoint, the votes or a file of the data cannot be used.
        StorageError: The checkpoint cannot be written.
        GateError: A device would compute other pixels than the training; the checkpoint is kept.
    """
    if not is_first_process():
        return result
    trained = load_checkpoint(result.checkpoint)
    finished = _finished(trained, options, data)
    if finished is not trained:
        save_checkpoint(result.checkpoint, finished)
    check_device_pixels(finished, result.checkpoint, data.validation, options.data, options.contempt, options.notify)
    best = TrainingRecord.read(finished.training).best
    assert best is not None
    accuracy, loss = best.validation_accuracy, best.validation_loss
    report = replace(result.best, validation_accuracy=accuracy, validation_loss=loss)
    return replace(result, best=report, temperature=finished.contract.temperature)


def _finished(checkpoint: Checkpoint, options: NetOptions, data: TrainingData) -> Checkpoint:
    record = TrainingRecord.read(checkpoint.training)
    if options.prior_strength and record.prior_adjustment is None:
        prior = class_prior(data.training, len(data.dataset.classes))
        checkpoint = adjusted(checkpoint, prior, options.prior_strength, options.notify)
        found = evaluate(TorchClassifier(build_net(checkpoint), checkpoint.contract), data.validation, "center-crop")
        options.notify(f"after the adjustment: {found.accuracy:.2%} on {data.validation_name}")
        figures = {"validation_accuracy": found.accuracy, "validation_loss": found.loss}
        training = {**checkpoint.training, "best": {**checkpoint.training["best"], **figures}}
        checkpoint = replace(checkpoint, training=training)
    if options.calibrate and record.calibration is None:
        return calibrated(checkpoint, data.calibration, options.notify)
    if not options.calibrate and record.calibration is not None:
        training = {name: value for name, value in checkpoint.training.items() if name != "calibration"}
        contract = replace(checkpoint.contract, temperature=1.0)
        return Checkpoint(contract, uncalibrated(checkpoint), training)
    return checkpoint


def check_device_pixels(
    checkpoint: Checkpoint,
    path: Path,
    validation: ImageSet,
    data: Path,
    contempt: str,
    notify: Notify = ignore_message,
) -> None:
    """Read up to 64 validation images again as a device does, and compare their pixels with those of training.

    Equal pixels have equal labels: `edgekit.export` verifies the net itself. Images of a .csv or HDF5 file are not
    checked, because they have no files that a device could read.

    Args:
        checkpoint: The checkpoint in the file at `path`, whose contract defines the crop.
        path: The file of the checkpoint, for the error.
        validation: The validation images, as read for training.
        data: The data set that they are from.
        contempt: See `edgekit.models.data.readers.load_dataset`.
        notify: Called with one line about the result.

    Raises:
        GateError: A pixel differs. The checkpoint is kept.
        InputError: A file of the data set cannot be read any more.
    """
    if validation.names is None:
        return
    contract = checkpoint.contract
    part = validation.subset(spread(len(validation), _IMAGES))
    size_hw = contract.input.size_hw
    trained = center_crop(with_contract_channels(part, contract).images, size_hw)
    different = [
        name
        for index, name, image in stored_files(data, part, contempt)
        if (crop_image(as_frame(image), contract.crop, size_hw, resize) != trained[index]).any()
    ]
    if different:
        raise GateError(
            f"a device reads {len(different)} of {len(part)} validation images differently from training, first "
            f"'{min(different)}': the checkpoint '{path}' is kept, but its accuracy can be lower on a "
            "device; if the data did not change during the training, this is a fault of edgekit"
        )
    notify(f"a device reads {len(part)} of {len(part)} validation images as training did")
