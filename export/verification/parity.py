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
from numpy.typing import NDArray

from edgekit.contract import Contract, CropSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import as_frame, resize
from edgekit.models.callbacks import Notify, Progress, StageProgress
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.originals import load_some, originals
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation, with_contract_channels
from edgekit.preprocess import FloatArray, ImageU8, center_crop, crop_image
from edgekit.testing.tolerance import (
    Tolerance,
    difference_fault,
    largest_difference,
    logit_faults,
    relative_difference,
    same_top1,
)

_BATCH_CROPS = 160
_STANDARD_ERRORS = 2


@dataclass(frozen=True)
class Parity:
    """Differences of the device side from the training side on `images` images.

    `crop_difference` is the largest difference of a pixel (0 to 255), `crops_different` the number of images with a
    difference, `first_different` the name of the first. `logits` and `reference_logits` are (N, labels).
    `batch_difference` is the largest difference of a logit between batches of one and of many images. `reference` and
    `device` are the evaluations of both sides; None if the data has a class that the model does not have, which is
    `unknown_class`. `crops` are uint8 (N, H, W, 1 or 3) of the device side.
    """

    crop_difference: int
    crops_different: int
    first_different: str | None
    reference_logits: FloatArray
    logits: FloatArray
    batch_difference: float
    reference: Evaluation | None
    device: Evaluation | None
    unknown_class: str | None
    crops: ImageU8

    @property
    def images(self) -> int:
        """Number of images that were compared."""
        return len(self.logits)

    @property
    def logits_difference(self) -> float:
        """Largest difference between a logit of the device and of the training code."""
        return largest_difference(self.reference_logits, self.logits)

    @property
    def relative_difference(self) -> float:
        """rms(difference) / rms(logits from the training code)."""
        return relative_difference(self.reference_logits, self.logits)

    @property
    def largest_logit(self) -> float:
        """Largest absolute logit from the training code."""
        return float(np.abs(self.reference_logits).max())

    @property
    def same_top1(self) -> int:
        """Number of images for which both sides have the same top-1 class."""
        return same_top1(self.reference_logits, self.logits)

    @property
    def worst(self) -> NDArray[np.int64]:
        """Indices of the images in descending order of their difference of logits."""
        difference = np.abs(self.reference_logits.astype(np.float64) - self.logits).max(axis=1)
        return np.argsort(-np.nan_to_num(difference, nan=np.inf), kind="stable")


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
    trained = _logits(reference, expected, partial(progress, "training side: classifying"))
    deployed = _logits(device, crops, partial(progress, "device side: classifying"))
    few = crops[:_BATCH_CROPS:5]
    single = np.concatenate([device.logits(crop[np.newaxis]) for crop in few])
    unknown_class = next((name for name in dataset.classes if name not in ours.labels), None)
    truths = None if unknown_class is not None else _truths(dataset, part, ours)
    return Parity(
        crop_difference=difference,
        crops_different=different,
        first_different=first,
        reference_logits=trained,
        logits=deployed,
        batch_difference=largest_difference(deployed[:_BATCH_CROPS:5], single),
        reference=None if truths is None else Evaluation(ours.labels, truths, trained),
        device=None if truths is None else Evaluation(ours.labels, truths, deployed),
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
    faults += logit_faults(found.reference_logits, found.logits, tolerance)
    allowed = tolerance.allowed_difference(found.reference_logits)
    faults += difference_fault("logits of one image and of a batch differ", found.batch_difference, allowed)
    if tolerance.drop is not None and found.reference is not None and found.device is not None:
        drop = accuracy_drop(found.reference, found.device, tolerance.drop)
        faults += [drop] if drop else []
    return faults


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


def _logits(classifier: CropClassifier, crops: ImageU8, progress: Progress) -> FloatArray:
    parts = []
    for start in range(0, len(crops), _BATCH_CROPS):
        parts.append(classifier.logits(crops[start : start + _BATCH_CROPS]))
        progress(start + len(parts[-1]), len(crops))
    return np.concatenate(parts)


def _truths(dataset: DataSet, part: ImageSet, contract: Contract) -> NDArray[np.int64]:
    """Return the true classes of the images (N,), numbered as the contract's labels."""
    numbers = np.array([contract.labels.index(name) for name in dataset.classes], np.int64)
    return numbers[part.labels]
