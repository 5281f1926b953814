"""Verification of an exported file on the user's own images, from image file to label."""

from __future__ import annotations

from pathlib import Path

from edgekit.contract import CropSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import engine_of
from edgekit.errors import GateError
from edgekit.export.verification.parity import ComparedImages, measure_parity, parity_faults, read_images
from edgekit.files import write_atomic
from edgekit.models.callbacks import Notify, StageProgress
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.testing.tolerance import tolerance_for

# Images compared, evenly spread over the split.
_IMAGES = 500


def read_own_images(data: Path, split: str, crop: CropSpec, progress: StageProgress, notify: Notify) -> ComparedImages:
    """Return the images for `verify_on`.

    Args:
        data: The data set; its classes need not be the file's labels.
        split: The split of `data`.
        crop: The checkpoint's preparation of images.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        InputError: The data cannot be used.
    """
    return read_images(data, split, _IMAGES, crop, contempt="keep", progress=progress, notify=notify)


def verify_on(
    images: ComparedImages,
    exported: Path,
    reference: TorchClassifier,
    target: Path,
    progress: StageProgress,
    notify: Notify,
) -> None:
    """Compare pixels, logits and labels of a file, run by the device's code, with those of its net.

    Args:
        images: From `read_own_images`.
        exported: The file.
        reference: The net that it was exported from, with the file's labels.
        target: The name of the file; a refused file is kept beside it as NAME.refused.onnx.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        GateError: A pixel, a logit or a label differs by more than `edgekit.verify` allows.
        InputError: The data has changed.
    """
    device = Classifier(exported)
    found = measure_parity(reference, device, images, progress)
    faults = parity_faults(found, tolerance_for(device.contract.precision, engine_of(exported)))
    if faults:
        refused = target.with_name(f"{target.stem}.refused{target.suffix}")
        write_atomic(refused, exported.read_bytes())
        raise GateError(f"the file is refused: {'; '.join(faults)}: it is kept as '{refused}'")
    notify(f"verified on {found.images} images of {images.data.name}: pixels and labels are equal")
