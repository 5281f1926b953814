"""Whether an exported file answers on a device as its source does in training, on the same images, from file to label.

The training side reads, resizes and cuts the images as evaluation does; the device side reads each file again, makes it
a frame, cuts it with the file's own contract and classifies it with the runtime's code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract, Precision
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import Engine
from edgekit.device.imaging import as_frame, resize
from edgekit.errors import InputError
from edgekit.export.verification.export_check import largest_difference
from edgekit.models.callbacks import Notify
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.originals import load_some, originals
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation
from edgekit.preprocess import FloatArray, ImageU8, center_crop, crop_face, to_gray

Progress = Callable[[int, int | None], None]
Bars = Callable[[str], Progress]

_BATCH_CROPS = 160
# Of the largest logit: what float32 loses on logits beyond some tens, such as those of a CLIP's student.
_FLOAT32_SHARE = 1e-5
_STANDARD_ERRORS = 2


@dataclass(frozen=True)
class Tolerance:
    """What a file may differ by: None where a measure is not asked for.

    `logits` is the largest allowed difference of a logit, or `share` of the largest logit if that is more; `relative`
    the root mean square of the differences over that of the logits; `agreement` the least share of images with the same
    top-1; `drop` how much accuracy may fall, a share of the images, on top of what so few images do not tell (two
    standard errors).
    """

    logits: float | None
    agreement: float
    relative: float | None = None
    drop: float | None = None
    share: float = 0.0


# Float files must give the same answers. Rounding to eight bits changes the shipped net's logits by 0.03 and 2 % of its
# answers; 1 to 3 % already change between ONNX Runtime's optimisation levels.
_TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(logits=1e-4, agreement=1.0, share=_FLOAT32_SHARE),
    "float16": Tolerance(logits=None, agreement=0.99, relative=0.01, drop=0.005),
    "int8": Tolerance(logits=None, agreement=0.95, relative=0.15, drop=0.005),
}


# ncnn sums up 3x3 convolutions in another way (Winograd).
_NCNN = Tolerance(logits=1e-3, agreement=1.0, share=_FLOAT32_SHARE)


def tolerance_for(precision: Precision, engine: Engine = "onnxruntime") -> Tolerance:
    """Return what a file of that precision may differ by on that engine from its float32 source."""
    return _NCNN if engine == "ncnn" else _TOLERANCES[precision]


@dataclass(frozen=True)
class Agreement:
    """What was found on `images` images.

    `crop_difference` is the largest difference of a pixel (0 to 255), `crops_different` counts images with one and
    `first_different` names the first. `logits_difference` is the largest difference of a logit, `batch_difference` that
    between one image at a time and many. The evaluations are None where the data's classes are not the model's.
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
        """Number of images compared."""
        return len(self.logits)

    @property
    def logits_difference(self) -> float:
        """Largest difference of a logit."""
        return largest_difference(self.reference_logits, self.logits)

    @property
    def relative_difference(self) -> float:
        """Root mean square of the differences over that of the training side's logits."""
        expected = self.reference_logits.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.sqrt(np.mean((expected - self.logits) ** 2) / np.mean(expected**2)))

    @property
    def largest_logit(self) -> float:
        """Largest absolute logit of the training side."""
        return float(np.abs(self.reference_logits).max())

    @property
    def same_answers(self) -> int:
        """Number of images with the same top-1."""
        return int((self.reference_logits.argmax(axis=1) == self.logits.argmax(axis=1)).sum())

    @property
    def worst(self) -> NDArray[np.int64]:
        """Indices of the images, those whose logits differ most first."""
        difference = np.abs(self.reference_logits.astype(np.float64) - self.logits).max(axis=1)
        return np.argsort(-np.nan_to_num(difference, nan=np.inf), kind="stable")


def compare(
    reference: CropClassifier,
    device: Classifier,
    data: Path,
    split: str,
    limit: int | None,
    *,
    contempt: str,
    say: Notify,
    bars: Bars,
) -> Agreement:
    """Send the same images through both sides.

    Args:
        reference: The training side: a checkpoint, or the file the device's was made from.
        device: The device side.
        data: The data set.
        split: The split to take.
        limit: At most so many images, evenly spread over the split; None for all.
        contempt: See `load_dataset`.
        say: Called with what a user should know.
        bars: Starts a progress bar by its description.

    Raises:
        InputError: The data cannot be read, the sides have other labels, or a side cannot classify.
    """
    theirs, ours = reference.contract, device.contract
    if theirs.labels != ours.labels:
        raise InputError(
            f"the sides have other labels, {', '.join(theirs.labels)} and {', '.join(ours.labels)}: "
            "compare with the file that has this one's"
        )
    dataset, part = load_some(
        data,
        split,
        limit,
        theirs.crop.resize_hw[0],
        contempt=contempt,
        notify=say,
        progress=bars("training side: reading"),
    )
    expected = center_crop(_as_trained(part.images, theirs), theirs.input.size_hw)
    crops, difference, different, first = _device_crops(
        data, split, part, limit, ours, expected, contempt, bars("device side: reading")
    )
    trained = _logits(reference, expected, bars("training side: classifying"))
    deployed = _logits(device, crops, bars("device side: classifying"))
    few = crops[:_BATCH_CROPS:5]
    single = np.concatenate([device.logits(crop[np.newaxis]) for crop in few])
    truths = _truths(dataset, part, ours, say)
    return Agreement(
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


def faults_of(found: Agreement, tolerance: Tolerance) -> list[str]:
    """Return what is beyond the tolerance, a line for each; empty if the file may be used."""
    faults = []
    if found.crops_different:
        faults.append(
            f"preprocessing differs on {found.crops_different} of {found.images} images, by up to "
            f"{found.crop_difference} of 255, first on '{found.first_different}'"
        )
    allowed = allowed_difference(found, tolerance)
    # Written so that differences that are no numbers are faults too.
    for what, value in (
        ("logits differ", found.logits_difference),
        ("one image and many differ", found.batch_difference),
    ):
        if not (math.isfinite(value) if allowed is None else value <= allowed):
            limit = "no number" if allowed is None else f"allowed is {allowed:.1e}"
            faults.append(f"{what} by up to {value:.2e}: {limit}")
    if tolerance.relative is not None and not found.relative_difference <= tolerance.relative:
        faults.append(
            f"logits differ by {found.relative_difference:.3f} of their root mean square: "
            f"allowed is {tolerance.relative:g}"
        )
    if found.same_answers < tolerance.agreement * found.images:
        faults.append(
            f"top-1 is the same on {found.same_answers} of {found.images} images, "
            f"allowed are no fewer than {tolerance.agreement:.0%}"
        )
    if tolerance.drop is not None and found.reference is not None and found.device is not None:
        right, still = (side.logits.argmax(axis=1) == side.truths for side in (found.reference, found.device))
        lost, won = int((right & ~still).sum()), int((~right & still).sum())
        margin = _STANDARD_ERRORS * math.sqrt(lost + won)
        if lost - won > tolerance.drop * found.images + margin:
            faults.append(
                f"accuracy falls by {(lost - won) / found.images:.2%}: allowed are {tolerance.drop:.1%} "
                f"and {margin / found.images:.2%} that so few images do not tell"
            )
    return faults


def allowed_difference(found: Agreement, tolerance: Tolerance) -> float | None:
    """Return by how much a logit may differ, or None where that is not asked for."""
    return None if tolerance.logits is None else max(tolerance.logits, tolerance.share * found.largest_logit)


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
    """Return the device's crops, their largest difference from the expected ones, how many differ, the first's name."""
    size_hw = contract.input.size_hw
    crops = np.zeros((len(part), *size_hw, 1 if contract.crop.grayscale else 3), np.uint8)
    largest, different, first = 0, 0, None
    for position, name, image in originals(data, split, part, limit, contempt=contempt, progress=progress):
        frame_bgr = as_frame(image)
        whole = (0.0, 0.0, float(frame_bgr.shape[1]), float(frame_bgr.shape[0]))
        crops[position] = crop_face(frame_bgr, whole, contract.crop, size_hw, resize)
        difference = _pixel_difference(crops[position], expected[position])
        if difference:
            largest, different = max(largest, difference), different + 1
            first = first or name
    return crops, largest, different, first


def _pixel_difference(crop: ImageU8, expected: ImageU8) -> int:
    if crop.shape[:2] != expected.shape[:2]:
        return 255
    # One gray channel and three equal ones are the same picture.
    return int(np.abs(crop.astype(np.int16) - expected.astype(np.int16)).max())


def _logits(classifier: CropClassifier, crops: ImageU8, progress: Progress) -> FloatArray:
    parts = []
    for start in range(0, len(crops), _BATCH_CROPS):
        parts.append(classifier.logits(crops[start : start + _BATCH_CROPS]))
        progress(start + len(parts[-1]), len(crops))
    return np.concatenate(parts)


def _truths(dataset: DataSet, part: ImageSet, contract: Contract, say: Notify) -> NDArray[np.int64] | None:
    unknown = [name for name in dataset.classes if name not in contract.labels]
    if unknown:
        say(f"accuracy is not measured: the model knows no class '{unknown[0]}'")
        return None
    numbers = np.array([contract.labels.index(name) for name in dataset.classes], np.int64)
    truths: NDArray[np.int64] = replace(part, targets=None).labels
    return numbers[truths]
