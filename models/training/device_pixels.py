"""Check at the end of a training: a device computes the pixels on which the model was validated."""

from __future__ import annotations

from pathlib import Path

from edgekit.device.imaging import as_frame, resize
from edgekit.errors import GateError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.originals import spread, stored_files
from edgekit.models.evaluation.evaluate import with_contract_channels
from edgekit.preprocess import center_crop, crop_image

# Images compared, evenly spread over the validation images.
_IMAGES = 64


def check_device_pixels(
    checkpoint_path: Path, validation: ImageSet, data: Path, contempt: str, notify: Notify = ignore_message
) -> None:
    """Read up to 64 validation images again as a device does, and compare their pixels with those of training.

    Equal pixels have equal labels: `edgekit.export` verifies the net itself. Images of a .csv or HDF5 file are not
    checked, because they have no files that a device could read.

    Args:
        checkpoint_path: The checkpoint, whose contract defines the crop.
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
    contract = load_checkpoint(checkpoint_path).contract
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
            f"'{min(different)}': the checkpoint '{checkpoint_path}' is kept, but its accuracy can be lower on a "
            "device; if the data did not change during the training, this is a fault of edgekit"
        )
    notify(f"a device reads {len(part)} of {len(part)} validation images as training did")
