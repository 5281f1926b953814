"""Figures of a model for its card, measured on the data that is at hand, as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.contract import Accuracy, Contract
from edgekit.models.callbacks import Notify
from edgekit.models.data import DataSet, duplicated
from edgekit.models.evaluation.bands import GROUPINGS, breakdowns, has_measure
from edgekit.models.evaluation.calibration import calibration
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation, mean_recall
from edgekit.models.evaluation.options import Protocols
from edgekit.models.evaluation.photos import PhotoEvaluation, evaluate_photos
from edgekit.models.evaluation.risk_coverage import risk_coverage
from edgekit.models.evaluation.run import evaluate, read_evaluation_data
from edgekit.preprocess import softmax

SPLIT = "PrivateTest"
PROTOCOLS: tuple[Protocols, ...] = ("center-crop", "ten-crop")
# As `edgekit run` classifies videos, and pictures.
FERPLUS_PROTOCOLS: tuple[Protocols, ...] = ("center-crop", "center-flip")
WITHOUT_DUPLICATES = " without duplicates"
# The classes of faces in front of a camera that photographs of films have in numbers.
FIELD_CLASSES = ("angry", "happy", "sad", "surprise", "neutral")
_BINS = 10
_THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Sources:
    """Data that a model is measured on; None for what is not at hand.

    Attributes:
        fer2013: FER-2013 in any format of `load_dataset`.
        ferplus: CSV of FER+ votes; used with `fer2013`.
        photos: Photographs, as `edgekit.evaluate_photos` reads them.
        detector: Detector for the photographs, or YuNet's .onnx file.
    """

    fer2013: Path | None = None
    ferplus: Path | None = None
    photos: Path | None = None
    detector: str = "yunet"


@dataclass(frozen=True)
class Figures:
    """Evaluations of one model: on FER-2013 and on FER+ by protocol, on photographs; empty or None if not measured."""

    fer2013: Mapping[str, Evaluation]
    ferplus: Mapping[str, Evaluation]
    photos: PhotoEvaluation | None

    @property
    def accuracy(self) -> tuple[Accuracy, ...]:
        """Accuracies on FER-2013 for the contract."""
        return tuple(
            Accuracy(result.dataset, result.split, protocol, result.correct, result.total)
            for protocol, result in self.fer2013.items()
        )


def measure(classifier: CropClassifier, sources: Sources, notify: Notify) -> Figures:
    """Return the figures of a model on the data that is at hand.

    Raises:
        InputError: The data cannot be used with this model.
    """
    crop = classifier.contract.crop
    dataset = None
    if sources.fer2013 is not None:
        dataset = read_evaluation_data(sources.fer2013, crop.resize_hw[0], crop.fit, notify=notify)
    ferplus = {}
    if dataset is not None and sources.ferplus is not None:
        for protocol in FERPLUS_PROTOCOLS:
            ferplus[str(protocol)] = evaluate(
                classifier, dataset, split=SPLIT, ferplus=sources.ferplus, protocol=protocol
            )
    photos = None
    if sources.photos is not None:
        [photos] = evaluate_photos([classifier], sources.photos, detector=sources.detector, notify=notify)
    return Figures({} if dataset is None else _on_fer2013(classifier, dataset), ferplus, photos)


def _on_fer2013(classifier: CropClassifier, dataset: DataSet) -> dict[str, Evaluation]:
    whole = {str(protocol): evaluate(classifier, dataset, split=SPLIT, protocol=protocol) for protocol in PROTOCOLS}
    alone = ~duplicated(dataset, SPLIT)
    return whole | {name + WITHOUT_DUPLICATES: result.subset(alone) for name, result in whole.items()}


def figures_document(figures: Figures, contract: Contract) -> dict[str, Any]:
    """Return the figures as a JSON object; what was not measured is None."""
    uncertain_below = contract.uncertain_below
    fer2013, ferplus, photos = figures.fer2013, figures.ferplus, figures.photos
    return {
        "uncertain_below": uncertain_below,
        "fer2013": {name: _accuracy(result) for name, result in fer2013.items()} or None,
        "fer2013_distribution": _distribution(fer2013[PROTOCOLS[0]], uncertain_below, ()) if fer2013 else None,
        "ferplus": {protocol: _on_ferplus(result) for protocol, result in ferplus.items()} or None,
        "photographs": None if photos is None else _on_photos(photos, uncertain_below),
    }


def _on_ferplus(result: Evaluation) -> dict[str, Any]:
    assert result.contempt is not None
    return {
        **_accuracy(result),
        "left_out": result.left_out,
        "eight_classes": {
            "accuracy": result.eight_class_accuracy,
            "correct": result.correct,
            "total": result.total + result.contempt,
            "contempt": result.contempt,
        },
    }


def _on_photos(result: PhotoEvaluation, uncertain_below: float) -> dict[str, Any]:
    found, classes = result.with_face, [name for name in FIELD_CLASSES if name in result.per_class]
    return {
        "accuracy": result.accuracy,
        "correct": found.correct,
        "total": result.total,
        "missed": result.missed_total,
        "left_out": dict(result.left_out),
        "detector": result.detector,
        "per_class": result.per_class,
        "images_per_class": _images_per_class(found, result.missed),
        "recall_of": classes,
        "mean_recall_of": mean_recall(result.per_class, classes),
        "with_face": _accuracy(found),
        **_distribution(found, uncertain_below, classes),
    }


def _accuracy(result: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": result.accuracy,
        "correct": result.correct,
        "total": result.total,
        "mean_recall": mean_recall(result.per_class),
        "loss": result.loss,
        "calibration_error": result.calibration.expected_error,
        "per_class": result.per_class,
    }


def _images_per_class(found: Evaluation, missed: Mapping[str, int]) -> dict[str, int]:
    counts = found.confusion.sum(axis=1).tolist()
    return {label: count + missed[label] for label, count in zip(found.labels, counts, strict=True)}


def _distribution(result: Evaluation, uncertain_below: float, classes: Sequence[str]) -> dict[str, Any]:
    """Return calibration, accuracy and coverage by threshold, and accuracy by the measures of the faces."""
    probabilities = softmax(result.logits)
    bins = calibration(probabilities, result.truths, _BINS)
    thresholds = sorted({*_THRESHOLDS, uncertain_below})
    groupings = [name for name, measures in GROUPINGS.items() if has_measure(result, measures[0])]
    return {
        "calibration": [
            {"from": index / _BINS, "count": count, "confidence": confidence, "accuracy": accuracy}
            for index, (count, confidence, accuracy) in enumerate(
                zip(bins.counts.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True)
            )
            if count
        ],
        "risk_coverage": risk_coverage(probabilities, result.truths, thresholds).as_document(),
        "by": {part.name: part.as_document() for part in breakdowns(result, groupings, classes)},
    }
