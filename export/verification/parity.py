"""Parity of training and device code: both process the same images, from image file to label, and are compared.

The training side reads, resizes and crops the images as evaluation does. The device side reads each image again,
converts it to a frame, crops it with the file's own contract and classifies it with the runtime's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract, Precision
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import Engine
from edgekit.device.imaging import as_frame, resize
from edgekit.errors import InputError
from edgekit.export.verification.export_check import largest_difference
from edgekit.models.callbacks import Notify, Progress, StageProgress
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.originals import load_some, originals
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation
from edgekit.preprocess import FloatArray, ImageU8, center_crop, crop_image, to_gray

_BATCH_CROPS = 160
# Tolerance as a share of the largest logit, for float32 rounding of logits above some tens, as in a CLIP's student.
_FLOAT32_SHARE = 1e-5
_STANDARD_ERRORS = 2


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of a file from its source; a difference whose limit is None is not checked.

    `logits` limits the absolute difference of a logit; the limit is `logit_share` of the largest logit if that is more.
    `relative` limits rms(difference) / rms(logits). `top1_share` is the smallest share of images with equal top-1.
    Accuracy (0..1) may drop by at most `drop` plus two standard errors of the difference.
    """

    logits: float | None
    top1_share: float
    relative: float | None = None
    drop: float | None = None
    logit_share: float = 0.0


# float32 files must give equal top-1. int8 changes the shipped net's logits by 0.03 (relative) and 2 % of its top-1;
# ONNX Runtime's optimisation levels alone change 1 to 3 % of the top-1 of an int8 file.
_TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(logits=1e-4, top1_share=1.0, logit_share=_FLOAT32_SHARE),
    "float16": Tolerance(logits=None, top1_share=0.99, relative=0.01, drop=0.005),
    "int8": Tolerance(logits=None, top1_share=0.95, relative=0.15, drop=0.005),
}


# ncnn computes 3x3 convolutions by Winograd's algorithm, which rounds more.
_NCNN = Tolerance(logits=1e-3, top1_share=1.0, logit_share=_FLOAT32_SHARE)


def tolerance_for(precision: Precision, engine: Engine = "onnxruntime") -> Tolerance:
    """Return the tolerance for a file of that precision on that engine, compared with its float32 source."""
    return _NCNN if engine == "ncnn" else _TOLERANCES[precision]


@dataclass(frozen=True)
class Parity:
    """Differences of the device side from the training side on `images` images.

    `crop_difference` is the largest difference of a pixel (0 to 255), `crops_different` the number of images with a
    difference, `first_different` the name of the first. `logits` and `reference_logits` are (N, labels).
    `batch_difference` is the largest difference of a logit between batches of one and of many images. `reference` and
    `device` are the evaluations of both sides; None if the data has a class that the model does not have. `crops` are
    uint8 (N, H, W, 1 or 3) of the device side.
    """

    crop_difference: int
    crops_different: int
    first_different: str | None
    reference_logits: FloatArray
    logits: FloatArray
    batch_difference: float
    reference: Evaluation | None
    device: Evaluation | None
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
        expected = self.reference_logits.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.sqrt(np.mean((expected - self.logits) ** 2) / np.mean(expected**2)))

    @property
    def largest_logit(self) -> float:
        """Largest absolute logit from the training code."""
        return float(np.abs(self.reference_logits).max())

    @property
    def same_top1(self) -> int:
        """Number of images for which both sides have the same top-1 class."""
        return int((self.reference_logits.argmax(axis=1) == self.logits.argmax(axis=1)).sum())

    @property
    def worst(self) -> NDArray[np.int64]:
        """Indices of the images in descending order of their difference of logits."""
        difference = np.abs(self.reference_logits.astype(np.float64) - self.logits).max(axis=1)
        return np.argsort(-np.nan_to_num(difference, nan=np.inf), kind="stable")


def measure_parity(
    reference: CropClassifier,
    device: Classifier,
    data: Path,
    split: str,
    limit: int | None,
    *,
    contempt: str,
    progress: StageProgress,
    notify: Notify,
) -> Parity:
    """Classify the same images with both sides and return their differences.

    Args:
        reference: The training side: the checkpoint or file that the device's file was made from.
        device: The device side.
        data: The data set.
        split: Name of the split.
        limit: Largest number of images, evenly spread over the split; None: all.
        contempt: See `load_dataset`.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        InputError: The data cannot be read, the sides have different labels, or a side cannot classify.
    """
    theirs, ours = reference.contract, device.contract
    if theirs.labels != ours.labels:
        raise InputError(
            f"the labels differ, {', '.join(theirs.labels)} and {', '.join(ours.labels)}: "
            "compare with a source that has the file's labels"
        )
    dataset, part = load_some(
        data,
        split,
        limit,
        theirs.crop,
        contempt=contempt,
        notify=notify,
        progress=partial(progress, "training side: reading"),
    )
    expected = center_crop(_as_trained(part.images, theirs), theirs.input.size_hw)
    crops, difference, different, first = _device_crops(
        data, split, part, limit, ours, expected, contempt, partial(progress, "device side: reading")
    )
    trained = _logits(reference, expected, partial(progress, "training side: classifying"))
    deployed = _logits(device, crops, partial(progress, "device side: classifying"))
    few = crops[:_BATCH_CROPS:5]
    single = np.concatenate([device.logits(crop[np.newaxis]) for crop in few])
    truths = _truths(dataset, part, ours, notify)
    return Parity(
        crop_difference=difference,
        crops_different=different,
        first_different=first,
        reference_logits=trained,
        logits=deployed,
        batch_difference=largest_difference(deployed[:_BATCH_CROPS:5], single),
        reference=None if truths is None else Evaluation(ours.labels, truths, trained),
        device=None if truths is None else Evaluation(ours.labels, truths, deployed),
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
    allowed = allowed_difference(found, tolerance)
    # `not <=` instead of `>`: NaN is a fault too.
    for what, value in (
        ("logits differ", found.logits_difference),
        ("logits of one image and of a batch differ", found.batch_difference),
    ):
        if not (math.isfinite(value) if allowed is None else value <= allowed):
            limit = "output contains NaN or infinity" if allowed is None else f"allowed: {allowed:.1e}"
            faults.append(f"{what} by up to {value:.2e}: {limit}")
    if tolerance.relative is not None and not found.relative_difference <= tolerance.relative:
        faults.append(
            f"logits differ by {found.relative_difference:.3f} of their root mean square, "
            f"allowed: {tolerance.relative:g}"
        )
    if found.same_top1 < tolerance.top1_share * found.images:
        faults.append(
            f"top-1 is equal on {found.same_top1} of {found.images} images, required: {tolerance.top1_share:.0%}"
        )
    if tolerance.drop is not None and found.reference is not None and found.device is not None:
        right, still = (side.logits.argmax(axis=1) == side.truths for side in (found.reference, found.device))
        lost, won = int((right & ~still).sum()), int((~right & still).sum())
        margin = _STANDARD_ERRORS * math.sqrt(lost + won)
        if lost - won > tolerance.drop * found.images + margin:
            faults.append(
                f"accuracy drops by {(lost - won) / found.images:.2%}, allowed: {tolerance.drop:.1%} "
                f"plus {margin / found.images:.2%}, two standard errors on {found.images} images"
            )
    return faults


def allowed_difference(found: Parity, tolerance: Tolerance) -> float | None:
    """Return the largest allowed difference of a logit; None if it is not checked."""
    return None if tolerance.logits is None else max(tolerance.logits, tolerance.logit_share * found.largest_logit)


def _as_trained(images: ImageU8, contract: Contract) -> ImageU8:
    if contract.crop.grayscale and images.shape[-1] == 3:
        return np.stack([to_gray(np.ascontiguousarray(image[..., ::-1])) for image in images])[..., np.newaxis]
    return images


def _device_crops(
    data: Path,
    split: str,
    part: ImageSet,
    limit: int | None,
    contract: Contract,
    expected: ImageU8,
    contempt: str,
    progress: Progress,
) -> tuple[ImageU8, int, int, str | None]:
    """Return the device's crops, compared with the training side's, `expected`.

    Returns:
        The crops; the largest difference of a pixel; the number of images that differ; the name of the first of them.
    """
    size_hw = contract.input.size_hw
    crops = np.zeros((len(part), *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    largest, different, first = 0, 0, None
    for position, name, image in originals(data, split, part, limit, contempt=contempt, progress=progress):
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


def _truths(dataset: DataSet, part: ImageSet, contract: Contract, notify: Notify) -> NDArray[np.int64] | None:
    unknown = [name for name in dataset.classes if name not in contract.labels]
    if unknown:
        notify(f"accuracy is not measured: the model has no label '{unknown[0]}'")
        return None
    numbers = np.array([contract.labels.index(name) for name in dataset.classes], np.int64)
    truths: NDArray[np.int64] = replace(part, targets=None).labels
    return numbers[truths]
