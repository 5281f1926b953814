"""Check at the end of a training: a device computes the pixels and labels on which the model was validated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekit.device.imaging import as_frame, decode_image, resize
from edgekit.errors import GateError, InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.originals import spread
from edgekit.models.data.readers import open_layout
from edgekit.models.evaluation.evaluate import TorchClassifier, as_shown
from edgekit.models.model_loading import build_net
from edgekit.preprocess import ImageU8, center_crop, crop_image

# Images compared, evenly spread over the validation images.
_IMAGES = 64


def check_device_pixels(
    checkpoint_path: Path, validation: ImageSet, data: Path, contempt: str, notify: Notify = ignore_message
) -> None:
    """Read up to 64 validation images again as a device does, and compare pixels and labels with those of training.

    Args:
        checkpoint_path: The checkpoint; its contract defines the crop, its net the labels.
        validation: The validation images, as read for training.
        data: The data set that they are from. Images of a .csv or HDF5 file are taken from `validation`.
        contempt: See `edgekit.models.data.readers.load_dataset`.
        notify: Called with one line about the result.

    Raises:
        GateError: A pixel or a label differs. The checkpoint is kept.
        InputError: A file of the data set cannot be read any more.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    contract = checkpoint.contract
    part = validation.subset(spread(len(validation), _IMAGES))
    trained = center_crop(as_shown(part, contract).images, contract.input.size_hw)
    if not contract.crop.grayscale:
        trained = np.broadcast_to(trained, (*trained.shape[:3], 3))
    names, images = zip(*_stored(part, data, contempt), strict=True)
    found = np.stack([crop_image(as_frame(image), contract.crop, contract.input.size_hw, resize) for image in images])
    differ = (found != trained).any(axis=(1, 2, 3))
    classifier = TorchClassifier(build_net(checkpoint), contract)
    differ |= classifier.logits(found).argmax(axis=1) != classifier.logits(trained).argmax(axis=1)
    if differ.any():
        raise GateError(
            f"a device reads {int(differ.sum())} of {len(part)} validation images differently from training, first "
            f"'{names[int(differ.argmax())]}': the checkpoint '{checkpoint_path}' is kept, but its accuracy does not "
            "hold on a device; if the data did not change during the training, this is a fault of edgekit"
        )
    notify(f"a device reads {len(part)} of {len(part)} validation images as training did")


def _stored(part: ImageSet, data: Path, contempt: str) -> Iterator[tuple[str, ImageU8]]:
    """Yield name and pixels, uint8 (H, W) or (H, W, 3) B, G, R, of each image, from its file if it has one."""
    if part.names is None:
        for row, image in enumerate(part.images):
            yield f"image {row}", image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
        return
    with open_layout(data, contempt, ignore_message) as (files, layout):
        paths = {entry.name: entry.path for entry in layout.entries}
        for name in part.names.tolist():
            if name not in paths:
                raise InputError(f"data '{data}': '{name}' does not exist any more, so its pixels cannot be checked")
            yield name, decode_image(files.read(paths[name]), f"{data}/{name}")
