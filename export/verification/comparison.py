"""The one comparison of a file, run by the device's code, with its net, for every command.

`export` compares each new file on crops of the shipped portrait (`check_export`). `export --eval` (`verify_on`) and
`verify` (`measure_parity`) compare on images of the user, from image file to label: the training side reads, resizes
and crops the images as evaluation does; the device side reads each image again, converts it to a frame, and crops it
with the file's own contract.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from edgekit.contract import Contract, CropSpec
from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.device.engines.engine import engine_of
from edgekit.device.imaging import as_frame, resize
from edgekit.errors import GateError
from edgekit.files import write_atomic
from edgekit.models.callbacks import Notify, Progress, StageProgress, ignore_progress
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.readers import load_some, originals
from edgekit.models.evaluation.evaluate import (
    CropClassifier,
    Evaluation,
    TorchClassifier,
    label_numbers,
    with_contract_channels,
)
from edgekit.models.model_loading import MergedClasses
from edgekit.preprocess import FloatArray, ImageU8, center_crop, crop_image
from edgekit.tolerance import (
    Tolerance,
    difference_fault,
    largest_difference,
    logit_faults,
    relative_difference,
    same_top1,
    tolerance_for,
)

_STANDARD_ERRORS = 2
_BATCH_CROPS = 160
# One crop of so many is also classified alone.
_ALONE_EVERY = 5


@dataclass(frozen=True)
class Comparison:
    """Logits (N, labels) of a file and of its net for the same images.

    `batch_difference` is the largest difference of a logit of the file between batches of one and of many images.
    """

    reference_logits: FloatArray
    logits: FloatArray
    batch_difference: float

    @property
    def images(self) -> int:
        """Number of images that were compared."""
        return len(self.logits)

    @property
    def logits_difference(self) -> float:
        """Largest difference between a logit of the file and of the net."""
        return largest_difference(self.reference_logits, self.logits)

    @property
    def relative_difference(self) -> float:
        """rms(difference) / rms(logits of the net)."""
        return relative_difference(self.reference_logits, self.logits)

    @property
    def largest_logit(self) -> float:
        """Largest absolute logit of the net."""
        return float(np.abs(self.reference_logits).max())

    @property
    def same_top1(self) -> int:
        """Number of images for which both have the same top-1 class."""
        return same_top1(self.reference_logits, self.logits)

    def faults(self, tolerance: Tolerance) -> list[str]:
        """Return one line for each difference that exceeds the tolerance."""
        allowed = tolerance.allowed_difference(self.reference_logits)
        alone = difference_fault("logits of one image and of a batch differ", self.batch_difference, allowed)
        return [*logit_faults(self.reference_logits, self.logits, tolerance), *alone]


def compare(
    net: CropClassifier,
    file: CropClassifier,
    net_crops: ImageU8,
    file_crops: ImageU8,
    progress: StageProgress = ignore_progress,
) -> Comparison:
    """Classify the same images with a net and with its file, and return the logits of both.

    Some crops are classified again one by one, because the logits of a file may depend on the batch.

    Args:
        net: The net or file that `file` was made from.
        file: The file; it has the labels of `net`.
        net_crops: The images as the training side crops them: uint8 (N, H, W, 1 or 3), N ≥ 1.
        file_crops: The same images as the device side crops them.
        progress: Called with (stage, images done, images in total).
    """
    expected = _logits(net, net_crops, partial(progress, "training side: classifying"))
    found = _logits(file, file_crops, partial(progress, "device side: classifying"))
    some = slice(0, _BATCH_CROPS, _ALONE_EVERY)  # of the first batch
    alone = np.concatenate([file.logits(crop[np.newaxis]) for crop in file_crops[some]])
    return Comparison(expected, found, largest_difference(found[some], alone))


def _logits(classifier: CropClassifier, crops: ImageU8, progress: Progress) -> FloatArray:
    """Return the logits (N, labels) of crops (N, H, W, C), computed in batches."""
    batches = []
    for start in range(0, len(crops), _BATCH_CROPS):
        batches.append(classifier.logits(crops[start : start + _BATCH_CROPS]))
        progress(start + len(batches[-1]), len(crops))
    return np.concatenate(batches)


@dataclass(frozen=True)
class ExportCheck:
    """Largest absolute differences of logits over `crops` crops of the shipped portrait.

    `max_abs_difference` compares the file's logits with torch's, `batch_difference` the file's logits for all crops in
    one batch with those for one crop at a time. Both are at most `tolerance`.
    """

    crops: int
    max_abs_difference: float
    batch_difference: float
    tolerance: float


def check_export(path: Path, net: nn.Module, contract: Contract, tolerance: float | None = None) -> ExportCheck:
    """Compare an exported float32 file with its net on crops of the shipped portrait.

    Rounding errors grow with the logits. Therefore a difference of 1e-5 of the largest logit (`Tolerance.logit_share`)
    is always allowed. Where this raises the tolerance, the top-1 classes are not compared.

    Args:
        path: The file; the runtime's code classifies with the contract in it.
        net: The net; it classifies through `TorchClassifier`, as in evaluation.
        contract: The checkpoint's contract.
        tolerance: Largest allowed difference of a logit; None: that of the file's engine.

    Raises:
        GateError: A logit is NaN or infinity or differs by more, or top-1 differs.
        InputError: The file cannot be loaded.
    """
    allowed = tolerance_for("float32", engine_of(path))
    if tolerance is not None:
        allowed = replace(allowed, logits=tolerance)
    crops = portrait_crops(contract)
    found = compare(TorchClassifier(net, contract), Classifier(path, intra_op_threads=1), crops, crops)
    reference = found.reference_logits
    if not np.isfinite(reference).all():
        raise GateError(
            f"the checkpoint's output contains NaN or infinity: {np.count_nonzero(~np.isfinite(reference))} of "
            f"{reference.size} logits on {len(crops)} crops: use an earlier checkpoint, or train again"
        )
    # Rounding errors grow with the logits in which they arise: for merged classes, those before they are merged.
    rounded = TorchClassifier(net.net, contract).logits(crops) if isinstance(net, MergedClasses) else reference
    limit = allowed.allowed_difference(rounded) or 0.0  # None does not occur: a tolerance of float32 has a limit
    is_raised_for_rounding = limit != allowed.logits
    top1_share = 0.0 if is_raised_for_rounding else allowed.top1_share
    if faults := found.faults(replace(allowed, logits=limit, top1_share=top1_share)):
        raise GateError(
            f"the exported file differs from the checkpoint on {len(crops)} crops of the test picture: "
            f"{'; '.join(faults)}"
        )
    return ExportCheck(len(crops), found.logits_difference, found.batch_difference, limit)


@dataclass(frozen=True)
class Parity(Comparison):
    """Differences of the device side from the training side on images of the user.

    `crop_difference` is the largest difference of a pixel (0 to 255), `crops_different` the number of images with a
    difference, `first_different` the name of the first. `reference` and `device` are the evaluations of both sides;
    None if the data has a class that the model does not have, which is `unknown_class`.
    """

    crop_difference: int
    crops_different: int
    first_different: str | None
    reference: Evaluation | None
    device: Evaluation | None
    unknown_class: str | None


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
    data: Path, split: str, limit: int | None, crop: CropSpec, *, contempt: str, progress: StageProgress, notify: Notify
) -> ComparedImages:
    """Read the images on which both sides are compared, as the training side does.

    Args:
        data: The data set.
        split: Name of the split.
        limit: Largest number of images, evenly spread over the split; None: all.
        crop: How the training side resizes images.
        contempt: What becomes of CK+'s eighth expression, see `load_dataset`.
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
    dataset, part = images.dataset, images.part
    size_hw = reference.contract.input.size_hw
    expected = center_crop(with_contract_channels(part, reference.contract).images, size_hw)
    reading = partial(progress, "device side: reading")
    device_crops, differences = _device_crops(images, device.contract, expected, reading)
    found = compare(reference, device, expected, device_crops, progress)
    labels = device.contract.labels
    numbers = label_numbers(dataset.classes, device.contract)  # of each class of the data, among `labels`
    # `label_numbers` returns None for a class without a label, -1 for one that the label map removes.
    unknown = [name for name, number in zip(dataset.classes, numbers, strict=True) if number is None or number < 0]
    reference_evaluation = device_evaluation = None
    if not unknown:
        truths = np.array(numbers, np.int64)[part.labels]
        reference_evaluation = Evaluation(labels, truths, found.reference_logits)
        device_evaluation = Evaluation(labels, truths, found.logits)
    return Parity(
        **vars(found),
        crop_difference=max(differences.values(), default=0),
        crops_different=len(differences),
        first_different=next(iter(differences), None),
        reference=reference_evaluation,
        device=device_evaluation,
        unknown_class=unknown[0] if unknown else None,
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
    # There is no accuracy if the model lacks the label of a class of the data.
    if tolerance.drop is not None and found.reference is not None and found.device is not None:
        drop = accuracy_drop(found.reference, found.device, tolerance.drop)
        if drop is not None:  # None if the drop is allowed, or not significant
            faults.append(drop)
    return faults


def verify_on(
    images: ComparedImages,
    path: Path,
    net: TorchClassifier,
    refused: Path,
    tolerance: float | None,
    progress: StageProgress,
    notify: Notify,
) -> FloatArray:
    """Compare pixels, logits and labels of a new file with those of its net, and return the file's logits.

    A file that fails is refused: it is kept as `refused` for a closer look.

    Args:
        images: From `read_images`, with the checkpoint's `crop`; their classes need not be the file's labels.
        path: The file.
        net: The net that it was exported from, with the file's labels.
        refused: Where a refused file is kept.
        tolerance: Largest allowed difference of a logit; None: that of the file's precision and engine.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        GateError: A pixel, a logit or a label differs by more than `edgekit.verify` allows.
        InputError: The data has changed.
    """
    device = Classifier(path)
    found = measure_parity(net, device, images, progress)
    allowed = tolerance_for(device.contract.precision, engine_of(path))
    if tolerance is not None:
        allowed = replace(allowed, logits=tolerance)
    if faults := parity_faults(found, allowed):
        write_atomic(refused, path.read_bytes())
        raise GateError(f"the file is refused: {'; '.join(faults)}: it is kept as '{refused}'")
    notify(f"verified on {found.images} images of {images.data.name}: pixels and labels are equal")
    return found.logits


def accuracy_drop(reference: Evaluation, other: Evaluation, allowed: float) -> str | None:
    """Return one line if `other` is significantly less accurate than `reference` on the same images, else None.

    The accuracy must be lower by more than `allowed` (0..1) plus two standard errors.
    """
    right_before = reference.logits.argmax(axis=1) == reference.truths
    right_after = other.logits.argmax(axis=1) == other.truths
    lost = int((right_before & ~right_after).sum())
    won = int((~right_before & right_after).sum())
    # As in McNemar's test: the standard error of lost - won is the root of the number of images that change.
    margin = _STANDARD_ERRORS * math.sqrt(lost + won)
    if lost - won <= allowed * reference.total + margin:
        return None
    return (
        f"accuracy drops by {(lost - won) / reference.total:.2%}, allowed: {allowed:.1%} "
        f"plus {margin / reference.total:.2%}, two standard errors on {reference.total} images"
    )


def _device_crops(
    images: ComparedImages, contract: Contract, expected: ImageU8, progress: Progress
) -> tuple[ImageU8, dict[str, int]]:
    """Read the images again, crop them with the device's code, and compare the crops with those of the training side.

    Args:
        images: The images.
        contract: The contract of the device's file.
        expected: The training side's crops, uint8 (N, H, W, 1 or 3).
        progress: Called with (images done, images in total).

    Returns:
        The device side's crops, and the largest difference of a pixel by the name of the image. The second one has only
        the images whose crops differ, in the order of reading.
    """
    size_hw = contract.input.size_hw
    crops = np.zeros((len(images.part), *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    differences: dict[str, int] = {}
    stored = originals(
        images.data, images.split, images.part, images.limit, contempt=images.contempt, progress=progress
    )
    for position, name, image in stored:
        crops[position] = crop_image(as_frame(image), contract.crop, size_hw, resize)
        difference = _pixel_difference(crops[position], expected[position])
        if difference > 0:
            differences[name] = difference
    return crops, differences


def _pixel_difference(crop: ImageU8, expected: ImageU8) -> int:
    """Return the largest difference of a pixel, 0 to 255; 255 for crops of other sizes."""
    if crop.shape[:2] != expected.shape[:2]:
        return 255
    # Broadcasting compares one gray channel with three equal ones.
    return int(np.abs(crop.astype(np.int16) - expected.astype(np.int16)).max())
