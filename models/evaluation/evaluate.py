"""Evaluation of a classifier on a split, with the preprocessing of the runtime.

classifier = open_classifier(Path("mine.onnx"))  # or a .safetensors checkpoint
result = evaluate(classifier, aligned(dataset, dataset.split("test"), classifier.contract), "center-crop")
result.accuracy, result.confusion
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.contract import Contract
from edgekit.device.engines.engine import device_suffixes
from edgekit.errors import InputError
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.disk import folder_of, new_array
from edgekit.models.data.merging import renumbered
from edgekit.models.evaluation.options import Protocols
from edgekit.models.model_loading import build_net
from edgekit.preprocess import (
    FloatArray,
    ImageU8,
    center_crop,
    log_mean_probabilities,
    softmax,
    ten_crops,
    to_gray,
    to_tensor,
    with_mirror_images,
)

# Crops of each image.
_VIEWS: dict[Protocols, int] = {"center-crop": 1, "center-flip": 2, "ten-crop": 10}
# Larger batches are slower: their activations exceed the cache.
_BATCH_CROPS = 160
_BINS = 15
# Limits of a fitted temperature; beyond them, a factor has no effect on the probabilities.
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


class CropClassifier(Protocol):
    """Protocol of classifiers of crops: `TorchClassifier`, or `edgekit.device.engines.classifier.Classifier`."""

    contract: Contract

    def logits(self, crops: ImageU8) -> FloatArray:
        """Return logits (N, labels) of crops uint8 (N, H, W, 1 or 3)."""


class TorchClassifier:
    """A torch net as a classifier, with the contract that its exported file has or would have."""

    def __init__(self, net: Callable[[Tensor], Tensor], contract: Contract, device: torch.device | None = None) -> None:
        """Use `net`, which returns logits (N, labels) of normalised images, on `device` (default: CPU).

        A module is moved there and set to eval mode.
        """
        self.contract = contract
        self._device = device or torch.device("cpu")
        self._net = net.eval().to(self._device) if isinstance(net, nn.Module) else net

    @torch.no_grad()
    def logits(self, crops: ImageU8) -> FloatArray:
        """Return logits (N, labels) of crops uint8 (N, H, W, 1 or 3)."""
        tensor = torch.from_numpy(to_tensor(crops, self.contract.input)).to(self._device)  # (N, C, H, W)
        return np.asarray(self._net(tensor).float().cpu().numpy(), np.float32)


@dataclass(frozen=True)
class Evaluation:
    """Predictions for a split: true classes `truths` int64 (N,), N ≥ 1, and `logits` float32 (N, classes).

    `dataset` and `split` name the images where they are known. `left_out` is the number of the split's images that were
    not evaluated, because their FER+ votes have no majority for an expression. `contempt` is the number of these whose
    majority is contempt; None if the labels are not those of FER+.
    """

    labels: tuple[str, ...]
    truths: NDArray[np.int64]
    logits: FloatArray
    dataset: str = ""
    split: str = ""
    left_out: int = 0
    contempt: int | None = None

    def subset(self, chosen: NDArray[np.bool_]) -> Evaluation:
        """Return the evaluation of the images that a boolean mask selects."""
        return replace(self, truths=self.truths[chosen], logits=self.logits[chosen])

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Number of images by true class (row) and predicted class (column): (classes, classes)."""
        counts = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(counts, (self.truths, self.logits.argmax(axis=1)), 1)
        return counts

    @cached_property
    def calibration(self) -> Calibration:
        """Confidence compared with accuracy, in bins of confidence."""
        return calibration(softmax(self.logits), self.truths)

    def coverage(self, thresholds: Sequence[float]) -> list[dict[str, float | None]]:
        """Return for each threshold the share of accepted images ("coverage") and their "accuracy", 0..1, None if none.

        An image is accepted if the probability of its predicted class is at least the threshold; the runtime gives the
        others the label "uncertain" (`Contract.uncertain_below`).
        """
        confidence = softmax(self.logits).max(axis=1)
        is_correct = self.logits.argmax(axis=1) == self.truths
        points: list[dict[str, float | None]] = []
        for threshold in thresholds:
            # The threshold has the type of the probabilities, as in the runtime.
            accepted = is_correct[confidence >= confidence.dtype.type(threshold)]
            accuracy = float(accepted.mean()) if len(accepted) else None
            points.append({"threshold": threshold, "coverage": len(accepted) / self.total, "accuracy": accuracy})
        return points

    @property
    def loss(self) -> float:
        """Mean cross-entropy with the labels, in nats."""
        of_truth = self.logits[np.arange(len(self.truths)), self.truths]
        return float((np.logaddexp.reduce(self.logits, axis=1) - of_truth).mean())

    @property
    def correct(self) -> int:
        """Number of correctly classified images."""
        return int(np.trace(self.confusion))

    @property
    def total(self) -> int:
        """Number of images."""
        return len(self.truths)

    @property
    def accuracy(self) -> float:
        """Fraction of correctly classified images, 0..1."""
        return self.correct / self.total

    @property
    def eight_class_accuracy(self) -> float | None:
        """Accuracy under the eight-class protocol of FER+, 0..1; None if the labels are not those of FER+.

        Images whose majority is contempt count, and a net without that class is wrong on them (Barsoum et al. 2016,
        arXiv 1608.01041).
        """
        return None if self.contempt is None else self.correct / (self.total + self.contempt)

    @property
    def per_class(self) -> dict[str, float | None]:
        """Recall per class, 0..1; None for a class without images."""
        counts = self.confusion.sum(axis=1)
        return {
            label: float(self.confusion[index, index] / counts[index]) if counts[index] else None
            for index, label in enumerate(self.labels)
        }


def mean_recall(per_class: Mapping[str, float | None], classes: Sequence[str] = ()) -> float | None:
    """Return the mean of the recalls of some classes, by default of all; None if none of these classes has images.

    Classes without images do not count.

    Raises:
        InputError: `per_class` lacks one of the classes.
    """
    check_labels(classes, tuple(per_class))
    recalls = [recall for name, recall in per_class.items() if recall is not None and (not classes or name in classes)]
    return sum(recalls) / len(recalls) if recalls else None


def check_labels(classes: Sequence[str], labels: Sequence[str]) -> None:
    """Check that classes are among a model's labels.

    Raises:
        InputError: A class is not among the labels.
    """
    for name in classes:
        if name not in labels:
            raise InputError(f"the model has no class '{name}': its labels are {', '.join(labels)}")


def open_named(model: str | Path | CropClassifier, intra_op_threads: int | None = None) -> CropClassifier:
    """Return the classifier of a shipped model's name, an exported file, a checkpoint or the folder of a training.

    A classifier is returned unchanged.

    Raises:
        InputError: As `open_classifier`.
    """
    if not isinstance(model, str | Path):
        return model
    path = resolve_model(str(model), (*device_suffixes(str(model)), CHECKPOINT_SUFFIX))
    return open_classifier(path, intra_op_threads)


def open_classifier(path: Path, intra_op_threads: int | None = None) -> CropClassifier:
    """Return the classifier in an exported file or a checkpoint.

    `intra_op_threads` is for an exported file; a checkpoint is evaluated with torch's number of threads.

    Raises:
        InputError: The file is missing, damaged or of another kind.
    """
    if path.suffix != CHECKPOINT_SUFFIX:
        # Imported here, because checkpoints do not need onnxruntime.
        from edgekit.device.engines.classifier import Classifier

        return Classifier(path, intra_op_threads)
    checkpoint = load_checkpoint(path)
    return TorchClassifier(build_net(checkpoint), checkpoint.contract)


def evaluate(
    classifier: CropClassifier,
    images: ImageSet,
    protocol: Protocols,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classify the images of a split and return the predictions.

    Args:
        classifier: The classifier; its contract defines the crops.
        images: The split, with labels numbered as in the contract (see `aligned`).
        protocol: "center-crop"; "center-flip": mean of the probabilities over the centre crop and its mirror image; or
            "ten-crop": mean of the logits over the four corners, the centre, and their mirror images.
        progress: Called with (images done, images in total).

    Raises:
        InputError: The split is empty, or the logits contain NaN or infinity.
    """
    total = len(images)
    contract = classifier.contract
    if protocol == "ten-crop" and contract.crop.resize_hw == contract.input.size_hw:
        raise InputError("the model takes whole images, which have one crop only: use protocol center-crop")
    if total == 0:
        raise InputError("the split has no images: choose another split")
    parts: list[FloatArray] = []
    for start, logits in _logits_in_batches(classifier, images.images, protocol):
        if not np.isfinite(logits).all():
            raise InputError("the model's output contains NaN or infinity: train or export it again")
        parts.append(logits)
        if progress:
            progress(start + len(logits), total)
    return Evaluation(contract.labels, images.labels, np.concatenate(parts))


def aligned(dataset: DataSet, images: ImageSet, contract: Contract) -> ImageSet:
    """Return `images` with labels numbered as in the contract, and converted to gray if the contract requires it.

    If the contract has merged labels, and the data has their old classes, the classes are merged as in the contract.
    Images of classes that are in no label are left out.

    Raises:
        InputError: The data set has a class that the model does not have, or the images have another size.
    """
    numbers = label_numbers(dataset.classes, contract)  # None: unknown; -1: left out
    unknown = [name for name, number in zip(dataset.classes, numbers, strict=True) if number is None]
    if unknown:
        raise InputError(
            f"data set '{dataset.name}' has the class '{unknown[0]}', "
            f"which the model does not have: its labels are {', '.join(contract.labels)}; use data with these classes, "
            "or merge the classes of the data (edgekit eval --merge)"
        )
    number_of = np.array(numbers, np.int64)  # the contract's number of each class of the data; -1: left out
    images = replace(images, targets=None)  # an evaluation compares with the labels only
    # Without classes to leave out, the pixels are not copied.
    part = renumbered(images, number_of) if -1 in numbers else replace(images, labels=number_of[images.labels])
    return with_contract_channels(part, contract)  # also checks the size


def label_numbers(classes: Sequence[str], contract: Contract) -> list[int | None]:
    """Return for each class of some data the number of its label: -1 if the label map removes it, None if unknown.

    Data whose classes are all labels is not merged, even if a label is also the name of an old class. Other data with
    any of the old classes is merged by the label map. The map does not list the classes that it removes, so all other
    classes of the data are removed.
    """
    labels, label_map = contract.labels, contract.label_map
    has_only_labels = set(classes) <= set(labels)
    if has_only_labels or label_map is None or set(classes).isdisjoint(label_map.old):
        return [labels.index(name) if name in labels else None for name in classes]
    return [label_map.number(name) for name in classes]


def with_contract_channels(images: ImageSet, contract: Contract) -> ImageSet:
    """Return `images` converted to gray if the contract requires it; the labels are unchanged.

    Raises:
        InputError: The images have another size than the contract requires.
    """
    pixels = images.images
    if pixels.shape[1:3] != contract.crop.resize_hw:
        raise InputError(f"images are {pixels.shape[1:3]} pixels, but the model needs {contract.crop.resize_hw}")
    if contract.crop.grayscale and pixels.shape[-1] == 3:
        gray = new_array(folder_of(pixels), (*pixels.shape[:3], 1))
        for index, image in enumerate(pixels):
            gray[index, ..., 0] = to_gray(image[..., ::-1])  # which takes BGR
        pixels = gray
    return replace(images, images=pixels)


def _logits_in_batches(
    classifier: CropClassifier, images: ImageU8, protocol: Protocols
) -> Iterator[tuple[int, FloatArray]]:
    """Yield the index of each batch's first image and the logits of its images, averaged over their crops.

    "center-flip" averages probabilities, "ten-crop" logits; see `evaluate`.
    """
    size_hw = classifier.contract.input.size_hw
    views = _VIEWS[protocol]  # crops of each image
    step = _BATCH_CROPS // views
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        if protocol == "center-crop":
            yield start, classifier.logits(center_crop(batch, size_hw))
        elif protocol == "center-flip":
            logits = classifier.logits(with_mirror_images(center_crop(batch, size_hw)))  # (2 N, classes)
            yield start, log_mean_probabilities(logits.reshape(views, len(batch), -1))
        else:
            crops = ten_crops(batch, size_hw)  # (N, 10, h, w, C)
            logits = classifier.logits(crops.reshape(-1, *crops.shape[2:]))  # (10 N, classes)
            yield start, logits.reshape(len(batch), views, -1).mean(axis=1)


@dataclass(frozen=True)
class Calibration:
    """Predictions sorted into bins of equal width by confidence, the probability of the predicted class.

    `counts` int64 (bins,) are the predictions per bin; `confidence` and `accuracy` float64 (bins,) are the means of
    each bin, 0..1, NaN for an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0..1: mean of |accuracy - confidence| over the bins, weighted by their counts.

        Source: Guo et al., ICML 2017 (arXiv 1706.04599), equation 3.
        """
        gaps = np.abs(self.accuracy - self.confidence)  # NaN for empty bins
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(probabilities: FloatArray, truths: NDArray[np.int64], bins: int = _BINS) -> Calibration:
    """Return the calibration of predictions: counts, mean confidence and accuracy per bin.

    Args:
        probabilities: (N, classes), N ≥ 1; each row sums to 1.
        truths: The true classes, (N,).
        bins: Number of bins between 0 and 1; a confidence on an edge counts in the lower bin.
    """
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == truths
    # The bin of each image: `ceil` puts a confidence on an edge into the lower bin. By rounding, a confidence can be a
    # little above 1: `clip` puts it into the last bin.
    bin_of = np.clip(np.ceil(confidence * np.float32(bins)).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of empty bins
        return Calibration(
            counts,
            confidence=np.bincount(bin_of, weights=confidence, minlength=bins) / counts,
            accuracy=np.bincount(bin_of, weights=is_correct, minlength=bins) / counts,
        )


def fit_temperature(logits: FloatArray, truths: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05 to 20, at which the mean cross-entropy of `logits / temperature` is lowest.

    The cross-entropy has one minimum over the inverse temperature, because it is convex in it; a golden-section search
    finds it. Source: Guo et al., ICML 2017 (arXiv 1706.04599), section 4.2.

    Args:
        logits: (N, classes), N ≥ 1.
        truths: The true classes, (N,).
    """
    # Logits minus that of the true class: the cross-entropy is the logarithm of the sum of their exponentials.
    gaps = logits.astype(np.float64)
    gaps -= gaps[np.arange(len(truths)), truths][:, np.newaxis]

    def cross_entropy(inverse_temperature: float) -> float:
        return float(np.logaddexp.reduce(gaps * inverse_temperature, axis=1).mean())

    low, high = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE  # the inverse temperature is between them
    while high - low > 1e-4 * low:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if cross_entropy(left) <= cross_entropy(right):
            high = right
        else:
            low = left
    return 2 / (low + high)
