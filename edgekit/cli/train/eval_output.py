"""Output of `edgekit eval`: tables and JSON documents of evaluations, on prepared images and on photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, TextTable, picked

if TYPE_CHECKING:
    from edgekit.models.evaluation.evaluate import Evaluation
    from edgekit.models.evaluation.options import EvaluationOptions
    from edgekit.models.evaluation.photos import PhotoEvaluation

_PRINTED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


def print_evaluation(out: Output, result: Evaluation, recall_of: Sequence[str]) -> None:
    """Print confusion matrix, accuracy, mean recall, calibration error, and accuracy and coverage by threshold."""
    out.show(_confusion_table(result, result.per_class))
    without = f"{result.left_out:,} images of the split, for which FER+ has no majority"
    eight = (
        f"{_percent(result.eight_class_accuracy)} ({result.correct} of {result.total + (result.contempt or 0)}): the "
        f"usual protocol of FER+, {result.contempt} images with a majority for contempt count as wrong"
    )
    out.fields(
        [
            ("accuracy", f"{result.accuracy:.2%} ({result.correct} of {result.total}), {_errors(result)}"),
            ("mean recall", _mean_recalls(result.per_class, recall_of)),
            ("left out", without if result.left_out else None),
            ("eight classes", None if result.contempt is None else eight),
        ]
    )
    out.show(_coverage_table(result))


def evaluation_document(
    result: Evaluation, model: str, options: EvaluationOptions, recall_of: Sequence[str]
) -> dict[str, Any]:
    """Return the JSON document of an evaluation on prepared images."""
    return {
        "model": model,
        **picked(options, "protocol", "without_duplicates"),
        **picked(result, "dataset", "split", "left_out", "contempt", "eight_class_accuracy", "accuracy"),
        **picked(result, "correct", "total", "per_class"),
        **_recall_document(result.per_class, recall_of),
        **_distribution_document(result),
    }


def print_photos(out: Output, model: str, result: PhotoEvaluation, recall_of: Sequence[str]) -> None:
    """Print the result of one model on photographs."""
    found = result.with_face
    out.say(f"{model} on photographs of {found.dataset}")
    out.show(_confusion_table(found, result.per_class, result.missed if result.detector else None))
    counts = f"{found.total:,} with a face, {result.missed_total:,} without, {result.several_faces:,} with several"
    views = ", each with its mirror image" if result.mirror else ""
    photographs = f"{result.total:,}: {counts} ({result.detector}{views})"
    left_out = ", ".join(f"{name} {count:,}" for name, count in result.left_out.items())
    total = f"{sum(result.left_out.values()):,} of classes that the model does not have"
    missed = bool(result.missed_total)
    correct = f"{found.correct} of {result.total}{', without a face is wrong' * missed}"
    out.fields(
        [
            ("photographs", photographs if result.detector else None),
            ("left out", f"{total}: {left_out}" if left_out else None),
            ("unreadable", f"{len(result.unreadable):,}" if result.unreadable else None),
            ("accuracy", f"{result.accuracy:.2%} ({correct})"),
            ("mean recall", _mean_recalls(result.per_class, recall_of)),
            ("with a face", f"{found.accuracy:.2%} ({found.correct} of {found.total})" if missed else None),
            ("mean recall", _mean_recalls(found.per_class, recall_of) if missed else None),
            ("errors", _errors(found)),
        ]
    )
    out.show(_coverage_table(found))


def photos_document(
    photos: str,
    models: Sequence[str],
    results: Sequence[PhotoEvaluation],
    recall_of: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON document of an evaluation on photographs; it has one entry per model."""
    return {
        "photos": photos,
        "models": [
            {
                "model": model,
                **picked(result.with_face, "dataset", "split", "correct"),
                **picked(result, "detector", "mirror", "several_faces", "unreadable", "accuracy", "per_class"),
                "photographs": result.total,
                "with_face": result.with_face.total,
                "missed": result.missed_total,
                "missed_per_class": dict(result.missed),
                "left_out": dict(result.left_out),
                "accuracy_with_face": result.with_face.accuracy,
                "per_class_with_face": result.with_face.per_class,
                **_recall_document(result.per_class, recall_of),
                **_recall_document(result.with_face.per_class, recall_of, "_with_face"),
                **_distribution_document(result.with_face),
            }
            for model, result in zip(models, results, strict=True)
        ],
    }


def _recall_document(
    per_class: Mapping[str, float | None], recall_of: Sequence[str], suffix: str = ""
) -> dict[str, Any]:
    from edgekit.models.evaluation.evaluate import mean_recall

    document: dict[str, Any] = {f"mean_recall{suffix}": mean_recall(per_class)}
    if recall_of:
        document["recall_of"] = list(recall_of)
        document[f"mean_recall_of{suffix}"] = mean_recall(per_class, recall_of)
    return document


def _distribution_document(result: Evaluation) -> dict[str, Any]:
    return {
        "loss": result.loss,
        "calibration_error": result.calibration.expected_error,
        "labels": list(result.labels),
        "confusion": result.confusion.tolist(),
        "risk_coverage": result.coverage(_THRESHOLDS),
    }


def _coverage_table(result: Evaluation) -> TextTable:
    """Return the share of accepted images at some thresholds, and their accuracy."""
    rows = [
        (f"{point['threshold']:g}", _percent(point["coverage"]), _percent(point["accuracy"]))
        for point in result.coverage(_PRINTED_THRESHOLDS)
    ]
    return TextTable(("threshold", "coverage", "accuracy"), rows, ("threshold",))


def _mean_recalls(per_class: Mapping[str, float | None], recall_of: Sequence[str]) -> str:
    from edgekit.models.evaluation.evaluate import mean_recall

    of = f", of {', '.join(recall_of)} {_percent(mean_recall(per_class, recall_of))}" if recall_of else ""
    return f"{_percent(mean_recall(per_class))}{of}"


def _errors(result: Evaluation) -> str:
    return f"cross-entropy {result.loss:.3f}, calibration error {result.calibration.expected_error:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _confusion_table(
    result: Evaluation, per_class: Mapping[str, float | None], missed: Mapping[str, int] | None = None
) -> TextTable:
    """Return the confusion matrix with the recall of each class, and the number of its missed faces if given."""
    rows = [
        (label, _percent(recall), *map(str, counts), *([] if missed is None else [str(missed[label])]))
        for (label, recall), counts in zip(per_class.items(), result.confusion, strict=True)
    ]
    columns = ("true class", "recall", *result.labels, *([] if missed is None else ["missed"]))
    return TextTable(columns, rows, ("true class",))
