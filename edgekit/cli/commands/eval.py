"""`edgekit eval`: accuracy of a checkpoint or an exported file on a data set, or on whole photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, reported
from edgekit.files import check_writable
from edgekit.models.clip.options import ClipOptions
from edgekit.models.evaluation.options import EvaluatePhotosOptions, EvaluationOptions
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.contract import CropSpec
    from edgekit.models.evaluation.evaluate import CropClassifier

_ZERO_SHOT = "zero-shot"
# How images become squares if they are not cut to their centre.
_FITS = {"pad": "images padded to squares", "stretch": "images stretched to squares"}


def _names(text: str) -> tuple[str, ...]:
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
    out: Output,
    shown: ShownOptions,
    options: EvaluationOptions,
    photos: EvaluatePhotosOptions,
    clip: ClipOptions,
) -> None:
    """Measure the accuracy of MODEL.

    MODEL is an .onnx or .ncnn file, a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or
    `distilled`.

    With --data, images are classified without a detector, on the same pixels as on a device. With --photos, the
    detector finds the largest face of each photograph, as `edgekit run --largest` does. Two accuracies are printed: for
    all photographs, and for the photographs with a detected face. In the first accuracy, a photograph without a
    detected face counts as wrong. If there are several models, all of them classify the same faces.

    With --clip, MODEL is a file of trained prompts, or `zero-shot` for the CLIP without prompts. With --clip, images
    are cropped to their central square.

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
    models = [str(model) for model in photos.models]
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
    from edgekit.cli.train.eval_output import evaluation_document, print_evaluation
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
    if crop.fit not in _FITS:
        return protocol
    is_whole = protocol == "center-crop" and crop.center_crop_hw == crop.resize_hw
    return _FITS[crop.fit] if is_whole else f"{_FITS[crop.fit]}, {protocol}"


def _on_photos(
    out: Output,
    models: Sequence[str],
    shown: ShownOptions,
    options: EvaluationOptions,
    photos: EvaluatePhotosOptions,
) -> None:
    from edgekit.cli.train.eval_output import photos_document, print_photos
    from edgekit.models.evaluation.photos import evaluate_photos
    from edgekit.models.evaluation.plots import save_evaluation

    classifiers = _opened(models, options.threads, shown.recall_of)
    shared = {"models": classifiers, "split": options.split, "threads": options.threads}
    with reported(out) as callbacks:
        results = evaluate_photos(**vars(photos) | shared | callbacks)
    for model, result in zip(models, results, strict=True):
        print_photos(out, model, result, shown.recall_of)
    if shown.plot:
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
