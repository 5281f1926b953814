"""`edgekit eval`: accuracy of a checkpoint or an exported file on a data set, or on whole photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, TextTable, picked, reported
from edgekit.files import check_writable
from edgekit.models.clip.options import ClipOptions
from edgekit.models.evaluation.options import EvaluatePhotosOptions, EvaluationOptions
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.contract import CropSpec
    from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation
    from edgekit.models.evaluation.photos import PhotoEvaluation

_PRINTED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))
_ZERO_SHOT = "zero-shot"
# How images become squares if they are not cut to their centre.
_FITS = {"pad": "images padded to squares", "stretch": "images stretched to squares"}


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


@dataclass(frozen=True, kw_only=True)
class ShownOptions(Options):
    """What is evaluated on, and what is shown of the result."""

    title = "Data"
    data: Path | None = option(
        "--data",
        "Crops of faces, or whole images for a model of whole images: folders, .tar.gz, fer2013.csv or .h5.",
        metavar="DATA",
    )
    recall_of: tuple[str, ...] = option(
        "--recall-of",
        "Also print the mean recall of these classes.",
        default=(),
        metavar="CLASS,CLASS",
        parse=_names,
        section="Figures",
    )
    plot: Path | None = option(
        "--plot",
        "Plot confusion matrix and reliability (.png, .svg, .pdf).",
        metavar="FILE",
        section="Figures",
    )


@edgekit_command(
    "eval",
    short_help="Measure accuracy on a data set or on photographs.",
    shown=ShownOptions,
    options=EvaluationOptions,
    photos=EvaluatePhotosOptions,
    clip=ClipOptions,
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
def command(
    out: Output, shown: ShownOptions, options: EvaluationOptions, photos: EvaluatePhotosOptions, clip: ClipOptions
) -> None:
    """Measure the accuracy of MODEL.

    MODEL is an .onnx or .ncnn file, a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or
    `distilled`.

    With --data, images are classified without a detector, on the same pixels as on a device.

    With --photos, the detector finds the largest face of each photograph, as `edgekit run --largest` does. Two
    accuracies are printed: for the photographs with a detected face, and for all photographs, where those without a
    detected face count as wrong. Several models classify the same faces.

    With --clip, MODEL is a file of trained prompts, or `zero-shot` for the CLIP without prompts. Images are cropped to
    their central square.

    \b
    Examples:
      edgekit eval fer2013 --data fer2013.tar.gz
      edgekit eval runs/mine/best.safetensors --data fer2013.csv --protocol ten-crop
      edgekit eval mine.onnx --data folders --split test --plot eval.png --json
      edgekit eval default --data fer2013.tar.gz --ferplus ferplus_votes.csv
      edgekit eval default mine.onnx --photos photos --recall-of happy,sad,neutral
      edgekit eval runs/moods/best.safetensors --data fer2013.csv --merge good=happy,surprise
          --merge bad=sad,angry
      edgekit eval runs/prompts/best.safetensors --clip ViT-B-16.pt --data fer2013.tar.gz
      edgekit eval zero-shot --clip ViT-B-16.pt --data folders --descriptions mine.json --split test
    """
    models = [str(model) for model in photos.models]  # the argument MODEL, which --data uses, too
    if shown.data is None and photos.photos is None:
        raise click.UsageError("give one of --data and --photos")
    if len(models) > 1 and (shown.data is not None or shown.plot):
        raise click.UsageError(f"{len(models)} models are given: only --photos without --plot takes more than one")
    if clip.clip is None and models == [_ZERO_SHOT]:
        raise click.UsageError(f"{_ZERO_SHOT} needs --clip")
    if shown.plot:
        from edgekit.models.evaluation.plots import check_plot_path

        check_plot_path(shown.plot)
        check_writable(shown.plot)  # reported before the images are classified
    if shown.data is None:
        _on_photos(out, models, shown, options, photos)
    else:
        _on_data(out, models[0], shown.data, shown, options, clip)


def _on_data(
    out: Output, model: str, data: Path, shown: ShownOptions, options: EvaluationOptions, clip: ClipOptions
) -> None:
    """Evaluate one model on a data set of crops or whole images, and print the result."""
    from edgekit.models.evaluation.plots import save_evaluation
    from edgekit.models.evaluation.run import evaluate

    with reported(out) as callbacks:
        if clip.clip is None:
            [classifier] = _opened([model], options.threads, shown.recall_of)
            result = evaluate(classifier, data, **vars(options) | callbacks)
            protocol = _protocol_text(classifier.contract.crop, options.protocol)
        else:
            from edgekit.models.clip.classifier import evaluate_clip

            prompts = None if model == _ZERO_SHOT else model
            result = evaluate_clip(clip, prompts, data, **vars(options) | callbacks)
            protocol = options.protocol
    title = f"on {result.dataset} {result.split}, {protocol}"
    out.say(f"{model} {title}")
    print_evaluation(out, result, shown.recall_of)
    if shown.plot:
        save_evaluation(shown.plot, result, f"{Path(model).name} {title}")
        out.say(f"confusion matrix and reliability: {shown.plot}")
    out.result(evaluation_document(result, model, options, shown.recall_of))


def _protocol_text(crop: CropSpec, protocol: str) -> str:
    """Return the protocol, with how images become squares if they are not cut to their central square."""
    if crop.fit not in _FITS:
        return protocol
    is_whole = protocol == "center-crop" and crop.center_crop_hw == crop.resize_hw
    return _FITS[crop.fit] if is_whole else f"{_FITS[crop.fit]}, {protocol}"


def _on_photos(
    out: Output, models: Sequence[str], shown: ShownOptions, options: EvaluationOptions, photos: EvaluatePhotosOptions
) -> None:
    """Evaluate models on the faces that the detector finds in photographs, and print the results."""
    from edgekit.models.evaluation.photos import evaluate_photos
    from edgekit.models.evaluation.plots import save_evaluation

    classifiers = _opened(models, options.threads, shown.recall_of)
    # The classifiers replace the names in `photos.models`.
    shared = {"models": classifiers, "split": options.split, "threads": options.threads}
    with reported(out) as callbacks:
        results = evaluate_photos(**vars(photos) | shared | callbacks)
    for model, result in zip(models, results, strict=True):
        print_photos(out, model, result, shown.recall_of)
    if shown.plot:  # `command` has checked that there is one model
        title = f"{Path(models[0]).name} on {results[0].with_face.dataset}"
        save_evaluation(shown.plot, results[0].with_face, f"{title}, photographs with a face")
        out.say(f"confusion matrix and reliability: {shown.plot}")
    out.result(photos_document(str(photos.photos), models, results, shown.recall_of))


def _opened(models: Sequence[str], threads: int | None, recall_of: Sequence[str]) -> list[CropClassifier]:
    """Load the models, and check before any measurement that each has the classes of --recall-of."""
    from edgekit.models.evaluation.evaluate import check_labels, open_named

    classifiers = [open_named(model, threads) for model in models]
    for classifier in classifiers:
        check_labels(recall_of, classifier.contract.labels)
    return classifiers


def print_evaluation(out: Output, result: Evaluation, recall_of: Sequence[str]) -> None:
    """Print confusion matrix, accuracy, mean recall, calibration error, and accuracy and coverage by threshold."""
    out.show(_confusion_table(result, result.per_class))
    left_out = f"{result.left_out:,} images of the split, for which FER+ has no majority"
    # Shown only with labels of FER+: otherwise `contempt` is None.
    eight = (
        f"{_percent(result.eight_class_accuracy)} ({result.correct} of {result.total + (result.contempt or 0)}): the "
        f"usual protocol of FER+, {result.contempt} images with a majority for contempt count as wrong"
    )
    out.fields(
        [
            ("accuracy", f"{result.accuracy:.2%} ({result.correct} of {result.total}), {_errors(result)}"),
            ("mean recall", _mean_recalls(result.per_class, recall_of)),
            ("left out", left_out if result.left_out else None),
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
        **picked(options, "protocol"),
        **picked(result, "dataset", "split", "left_out", "contempt", "eight_class_accuracy", "accuracy"),
        **picked(result, "correct", "total", "per_class"),
        **_recall_document(result.per_class, recall_of),
        **_distribution_document(result),
    }


def print_photos(out: Output, model: str, result: PhotoEvaluation, recall_of: Sequence[str]) -> None:
    """Print the result of one model on photographs: for all, and for those with a detected face if some have none."""
    faces = result.with_face  # the evaluation of the photographs with a detected face
    has_detector = bool(result.detector)  # without one, photographs are classified whole, and none is missed
    out.say(f"{model} on photographs of {faces.dataset}")
    out.show(_confusion_table(faces, result.per_class, result.missed if has_detector else None))
    counts = f"{faces.total:,} with a face, {result.missed_total:,} without, {result.several_faces:,} with several"
    views = ", each with its mirror image" if result.mirror else ""
    photographs = f"{result.total:,}: {counts} ({result.detector}{views})"
    left_out = f"{sum(result.left_out.values()):,} of classes that the model does not have: "
    left_out += ", ".join(f"{name} {count:,}" for name, count in result.left_out.items())
    has_missed = result.missed_total > 0
    correct = f"{faces.correct} of {result.total}" + (", without a face is wrong" if has_missed else "")
    out.fields(
        [
            ("photographs", photographs if has_detector else None),
            ("left out", left_out if result.left_out else None),
            ("unreadable", f"{len(result.unreadable):,}" if result.unreadable else None),
            ("accuracy", f"{result.accuracy:.2%} ({correct})"),
            ("mean recall", _mean_recalls(result.per_class, recall_of)),
            ("with a face", f"{faces.accuracy:.2%} ({faces.correct} of {faces.total})" if has_missed else None),
            # The mean recall of the photographs with a face.
            ("mean recall", _mean_recalls(faces.per_class, recall_of) if has_missed else None),
            ("errors", _errors(faces)),
        ]
    )
    out.show(_coverage_table(faces))


def photos_document(
    photos: str, models: Sequence[str], results: Sequence[PhotoEvaluation], recall_of: Sequence[str]
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
    """Return the mean recall of all classes, and of those of --recall-of, for JSON; the keys end in `suffix`."""
    from edgekit.models.evaluation.evaluate import mean_recall

    document: dict[str, Any] = {f"mean_recall{suffix}": mean_recall(per_class)}
    if recall_of:
        document["recall_of"] = list(recall_of)  # the same for all suffixes
        document[f"mean_recall_of{suffix}"] = mean_recall(per_class, recall_of)
    return document


def _distribution_document(result: Evaluation) -> dict[str, Any]:
    """Return loss, calibration, confusion matrix, and accuracy by threshold of "uncertain", for a JSON document."""
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
    """Return the confusion matrix with the recall of each class, and the number of its missed faces if given.

    `per_class` has the recalls. For photographs, missed faces count as wrong; the recalls of `result` leave them out.
    """
    rows = []
    for (label, recall), counts in zip(per_class.items(), result.confusion, strict=True):
        rows.append([label, _percent(recall), *map(str, counts)])
        if missed is not None:
            rows[-1].append(str(missed[label]))
    columns = ["true class", "recall", *result.labels] + ([] if missed is None else ["missed"])
    return TextTable(columns, rows, ("true class",))
