"""Parity of training and device code: both process the same images, from image file to label, and are compared.

The training side reads, resizes and crops the images as evaluation does. The device side reads each image again,
converts it to a frame, crops it with the file's own contract and classifies it with the runtime's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgekit.contract import Contract, CropSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import engine_of
from edgekit.device.imaging import as_frame, resize
from edgekit.errors import GateError
from edgekit.export.verification.comparison import Comparison, compare
from edgekit.files import write_atomic
from edgekit.models.callbacks import Notify, Progress, StageProgress
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.originals import load_some, originals
from edgekit.models.evaluation.evaluate import (
    CropClassifier,
    Evaluation,
    TorchClassifier,
    label_numbers,
    with_contract_channels,
)
from edgekit.preprocess import ImageU8, center_crop, crop_image
from edgekit.testing.tolerance import Tolerance, tolerance_for

_STANDARD_ERRORS = 2


@dataclass(frozen=True)
class Parity(Comparison):
    """Differences of the device side from the training side on images of the user.

    `crop_difference` is the largest difference of a pixel (0 to 255), `crops_different` the number of images with a
    difference, `first_different` the name of the first. `reference` and `device` are the evaluations of both sides;
    None if the data has a class that the model does not have, which is `unknown_class`. `crops` are uint8 (N, H, W, 1
    or 3) of the device side.
    """

    crop_difference: int
    crops_different: int
    first_different: str | None
    reference: Evaluation | None
    device: Evaluation | None
    unknown_class: str | None
    crops: ImageU8


@dataclass(frozen=True)
class ComparedImages:
    """Images of a split, read as training does: at most `limit`, evenly spread over the split (None: all).

    `data` is the path of the data set, from which the device side reads the same images again.
    """

    data: Path
    split: str
    limit: int | None
    contempt: str
    dataset: DataSet
    part: ImageSet


def read_images(
    data: Path,
    split: str,
    limit: int | None,
    crop: CropSpec,
    *,
    contempt: str,
    progress: StageProgress,
    notify: Notify,
) -> ComparedImages:
    """Read the images on which both sides are compared.

    Args:
        data: The data set.
        split: Name of the split.
        limit: Largest number of images; None: all.
        crop: The training side's preparation of images.
        contempt: See `load_dataset`.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        InputError: The data cannot be read, or the split does not exist or is empty.
    """
    reading = partial(progress, "training side: reading")
    dataset, part = load_some(data, split, limit, crop, contempt=contempt, notify=notify, progress=reading)
    return ComparedImages(data, split, limit, contempt, dataset, part)


def measure_parity(
    reference: CropClassifier, device: Classifier, images: ComparedImages, progress: StageProgress
) -> Parity:
    """Classify the same images with both sides and return their differences.

    Args:
        reference: The training side: the checkpoint or file that the device's file was made from.
        device: The device side; it has the labels of the training side.
        images: From `read_images`, with the `crop` of the training side.
        progress: Called with (stage, done, total or None).

    Raises:
        InputError: The data has changed, or a side cannot classify.
    """
    theirs, ours = reference.contract, device.contract
    dataset, part = images.dataset, images.part
    expected = center_crop(with_contract_channels(part, theirs).images, theirs.input.size_hw)
    crops, difference, different, first = _device_crops(
        images, ours, expected, partial(progress, "device side: reading")
    )
    found = compare(
        reference,
        device,
        expected,
        crops,
        partial(progress, "training side: classifying"),
        partial(progress, "device side: classifying"),
    )
    numbers = label_numbers(dataset.classes, ours)
    pairs = zip(dataset.classes, numbers, strict=True)
    unknown_class = next((name for name, number in pairs if number is None or number < 0), None)
    truths = None if unknown_class is not None else np.array(numbers, np.int64)[part.labels]
    return Parity(
        **vars(found),
        crop_difference=difference,
        crops_different=different,
        first_different=first,
        reference=None if truths is None else Evaluation(ours.labels, truths, found.reference_logits),
        device=None if truths is None else Evaluation(ours.labels, truths, found.logits),
        unknown_class=unknown_class,
        crops=crops,
    )


def parity_faults(found: Parity, tolerance: Tolerance) -> list[str]:
    """Return one line for each difference that exceeds the tolerance; empty if the file can be used."""
    faults = []
    if found.crops_different:
        faults.append(
            f"preprocessing differs on {found.crops_different} of {found.images} images, by up to "
            f"{found.crop_difference} of 255, first on '{found.first_different}'"
        )
    faults += found.faults(tolerance)
    if tolerance.drop is not None and found.reference is not None and found.device is not None:
        drop = accuracy_drop(found.reference, found.device, tolerance.drop)
        faults += [drop] if drop else []
    return faults


def verify_on(
    images: ComparedImages, path: Path, net: TorchClassifier, refused: Path, progress: StageProgress, notify: Notify
) -> None:
    """Compare pixels, logits and labels of a new file with those of its net.

    Args:
        images: From `read_images`, with the checkpoint's `crop`; their classes need not be the file's labels.
        path: The file.
        net: The net that it was exported from, with the file's labels.
        refused: Where a refused file is kept.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        GateError: A pixel, a logit or a label differs by more than `edgekit.verify` allows.
        InputError: The data has changed.
    """
    device = Classifier(path)
    found = measure_parity(net, device, images, progress)
    if faults := parity_faults(found, tolerance_for(device.contract.precision, engine_of(path))):
        write_atomic(refused, path.read_bytes())
        raise GateError(f"the file is refused: {'; '.join(faults)}: it is kept as '{refused}'")
    notify(f"verified on {found.images} images of {images.data.name}: pixels and labels are equal")


def accuracy_drop(reference: Evaluation, other: Evaluation, allowed: float) -> str | None:
    """Return one line if the accuracy on the same images is lower by more than `allowed` plus two standard errors."""
    right, still = (side.logits.argmax(axis=1) == side.truths for side in (reference, other))
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    margin = _STANDARD_ERRORS * math.sqrt(lost + won)
    if lost - won <= allowed * reference.total + margin:
        return None
    return (
        f"accuracy drops by {(lost - won) / reference.total:.2%}, allowed: {allowed:.1%} "
        f"plus {margin / reference.total:.2%}, two standard errors on {reference.total} images"
    )


def _device_crops(
    images: ComparedImages, contract: Contract, expected: ImageU8, progress: Progress
) -> tuple[ImageU8, int, int, str | None]:
    """Return the device's crops, compared with the training side's, `expected`.

    Returns:
        The crops; the largest difference of a pixel; the number of images that differ; the name of the first of them.
    """
    size_hw = contract.input.size_hw
    crops = np.zeros((len(images.part), *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    largest, different, first = 0, 0, None
    stored = originals(
        images.data, images.split, images.part, images.limit, contempt=images.contempt, progress=progress
    )
    for position, name, image in stored:
        crops[position] = crop_image(as_frame(image), contract.crop, size_hw, resize)
        difference = _pixel_difference(crops[position], expected[position])
        if difference:
            largest, different = max(largest, difference), different + 1
            first = first or name
    return crops, largest, different, first


def _pixel_difference(crop: ImageU8, expected: ImageU8) -> int:
    if crop.shape[:2] != expected.shape[:2]:
        return 255
    # Broadcasting compares one gray channel with three equal ones.
    return int(np.abs(crop.astype(np.int16) - expected.astype(np.int16)).max())
