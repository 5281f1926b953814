"""Output of `edgekit eval`: tables and JSON documents of evaluations, on prepared images and on photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, one_line

if TYPE_CHECKING:
    from edgekit.models.evaluation.bands import Breakdown
    from edgekit.models.evaluation.evaluate import Evaluation
    from edgekit.models.evaluation.photos import PhotoEvaluation

_MAX_COLUMNS = 4096
_PRINTED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)


def print_evaluation(out: Output, result: Evaluation, recall_of: Sequence[str]) -> None:
    """Print confusion matrix, accuracy, mean recall, calibration error, and accuracy and coverage by threshold."""
    _print_confusion(out, result, result.per_class)
    out.say(
        f"accuracy {result.accuracy:.2%} ({result.correct} of {result.total}), cross-entropy {result.loss:.3f}, "
        f"calibration error {result.calibration.expected_error:.3f}"
    )
    out.say(_mean_recalls(result.per_class, recall_of))
    _print_accuracy_and_coverage(out, result)
    if result.left_out:
        out.say(f"left out    {result.left_out:,} images of the split, for which FER+ has no majority")
    if result.contempt is not None:
        total = result.total + result.contempt
        out.say(
            f"eight classes {_percent(result.eight_class_accuracy)} ({result.correct} of {total}): the usual protocol "
            f"of FER+, {result.contempt} images with a majority for contempt count as wrong"
        )


def evaluation_document(
    result: Evaluation,
    model: str,
    protocol: str,
    without_duplicates: bool,
    recall_of: Sequence[str],
    by: Sequence[Breakdown],
) -> dict[str, Any]:
    """Return the JSON document of an evaluation on prepared images."""
    return {
        "model": model,
        "dataset": result.dataset,
        "split": result.split,
        "protocol": protocol,
        "without_duplicates": without_duplicates,
        "left_out": result.left_out,
        "contempt": result.contempt,
        "eight_class_accuracy": result.eight_class_accuracy,
        "accuracy": result.accuracy,
        "correct": result.correct,
        "total": result.total,
        "per_class": result.per_class,
        **_recall_document(result.per_class, recall_of),
        **_distribution_document(result),
        **_by_document(by),
    }


def print_breakdowns(out: Output, by: Sequence[Breakdown]) -> None:
    """Print accuracy, its 95 % Wilson interval and mean recall in bands, one table per measure."""
    for breakdown in by:
        rows = []
        for band in breakdown.bands:
            interval = "-" if band.interval is None else f"{band.interval[0]:.1%} to {band.interval[1]:.1%}"
            rows.append((band.name, f"{band.total:,}", _percent(band.accuracy), interval, _percent(band.mean_recall)))
        unmeasured = f", {breakdown.unmeasured:,} faces without" if breakdown.unmeasured else ""
        out.say(f"by {breakdown.name} ({breakdown.text}){unmeasured}")
        out.table(("band",), ("faces", "accuracy", "95 % interval", "mean recall"), rows)


def print_photos(out: Output, model: str, result: PhotoEvaluation, recall_of: Sequence[str]) -> None:
    """Print the result of one model on photographs."""
    found = result.with_face
    out.say(f"{one_line(model)} on photographs of {one_line(found.dataset)}")
    _print_confusion(out, found, result.per_class, result.missed if result.detector else None)
    if result.detector:
        counts = f"{found.total:,} with a face, {result.missed_total:,} without, {result.several_faces:,} with several"
        views = ", each with its mirror image" if result.mirror else ""
        out.say(f"photographs {result.total:,}: {counts} ({result.detector}{views})")
    left_out = ", ".join(f"{one_line(name)} {count:,}" for name, count in result.left_out.items())
    if left_out:
        out.say(f"left out    {sum(result.left_out.values()):,} of classes that the model does not have: {left_out}")
    if result.unreadable:
        out.say(f"unreadable  {len(result.unreadable):,}")
    error = f"cross-entropy {found.loss:.3f}, calibration error {found.calibration.expected_error:.3f}"
    if not result.missed_total:
        out.say(f"accuracy {result.accuracy:.2%} ({found.correct} of {result.total}), {error}")
        out.say(_mean_recalls(result.per_class, recall_of))
        _print_accuracy_and_coverage(out, found)
        return
    out.say(f"accuracy {result.accuracy:.2%} ({found.correct} of {result.total}, without a face is wrong)")
    out.say(f"         {_mean_recalls(result.per_class, recall_of)}")
    out.say(f"with a face {found.accuracy:.2%} ({found.correct} of {found.total}), {error}")
    out.say(f"         {_mean_recalls(found.per_class, recall_of)}")
    _print_accuracy_and_coverage(out, found)


def photos_document(
    photos: Path,
    models: Sequence[str],
    results: Sequence[PhotoEvaluation],
    recall_of: Sequence[str],
    by: Sequence[Sequence[Breakdown]],
) -> dict[str, Any]:
    """Return the JSON document of an evaluation on photographs; it has one entry per model."""
    return {
        "photos": str(photos),
        "models": [
            {
                "model": model,
                "dataset": result.with_face.dataset,
                "split": result.with_face.split,
                "detector": result.detector,
                "mirror": result.mirror,
                "photographs": result.total,
                "with_face": result.with_face.total,
                "missed": result.missed_total,
                "missed_per_class": dict(result.missed),
                "several_faces": result.several_faces,
                "left_out": dict(result.left_out),
                "unreadable": list(result.unreadable),
                "accuracy": result.accuracy,
                "accuracy_with_face": result.with_face.accuracy,
                "correct": result.with_face.correct,
                "per_class": result.per_class,
                "per_class_with_face": result.with_face.per_class,
                **_recall_document(result.per_class, recall_of),
                **_recall_document(result.with_face.per_class, recall_of, "_with_face"),
                **_distribution_document(result.with_face),
                **_by_document(broken_down),
            }
            for model, result, broken_down in zip(models, results, by, strict=True)
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
        "risk_coverage": result.risk_coverage.as_document(),
    }


def _by_document(by: Sequence[Breakdown]) -> dict[str, Any]:
    return {"by": {breakdown.name: breakdown.as_document() for breakdown in by}} if by else {}


def _print_accuracy_and_coverage(out: Output, result: Evaluation) -> None:
    """Print the share of accepted images at some thresholds, and their accuracy."""
    rows = [
        (f"{point['threshold']:g}", _percent(point["coverage"]), _percent(point["accuracy"]))
        for point in result.risk_coverage.as_document()
        if point["threshold"] in _PRINTED_THRESHOLDS
    ]
    out.table(("threshold",), ("coverage", "accuracy"), rows)


def _mean_recalls(per_class: Mapping[str, float | None], recall_of: Sequence[str]) -> str:
    from edgekit.models.evaluation.evaluate import mean_recall

    text = f"mean recall {_percent(mean_recall(per_class))}"
    if recall_of:
        text += f", of {', '.join(map(one_line, recall_of))} {_percent(mean_recall(per_class, recall_of))}"
    return text


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _print_confusion(
    out: Output,
    result: Evaluation,
    per_class: Mapping[str, float | None],
    missed: Mapping[str, int] | None = None,
) -> None:
    """Print the confusion matrix with the recall of each class, and the number of its missed faces if given."""
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    extra = () if missed is None else ("missed",)
    for column in ("true class", "recall", *result.labels, *extra):
        table.add_column(Text(one_line(column)), justify="left" if column == "true class" else "right", no_wrap=True)
    for index, (label, recall) in enumerate(per_class.items()):
        cells = [str(count) for count in result.confusion[index]]
        cells += [] if missed is None else [str(missed[label])]
        table.add_row(Text(one_line(label)), _percent(recall), *cells)
    console = out.console
    # In a narrow terminal, wrapped lines are readable and truncated columns are not.
    needed = Measurement.get(console, console.options.update(width=_MAX_COLUMNS), table).maximum
    out.show(table, needed)
