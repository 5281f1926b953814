"""`edgekit eval`: accuracy of a checkpoint or an exported file on a data set, or on whole photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command, section
from edgekit.cli.options import (
    PATH,
    activation_option,
    contempt_option,
    detector_options,
    merge_option,
    min_face_option,
    refuse_unused,
    threads_option,
)
from edgekit.cli.output import Output
from edgekit.cli.train.eval_output import (
    evaluation_document,
    photos_document,
    print_breakdowns,
    print_evaluation,
    print_photos,
)
from edgekit.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation

_CLIP_OPTIONS = ("clip_source", "descriptions", "activation")
_ONLY_WITH_DATA = ("protocol", "without_duplicates", "merges", "contempt", "ferplus", "errors", *_CLIP_OPTIONS)
_ONLY_WITH_PHOTOS = ("detector_name", "detector_model", "detector_size", "min_face", "mirror")


@click.command("eval", cls=Command, short_help="Measure accuracy on a data set or on photographs.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@section(
    "Data",
    click.option(
        "--data",
        type=PATH,
        help="Crops of faces, or whole images for a model of whole images: folders, .tar.gz, fer2013.csv or .h5.",
    ),
    click.option(
        "--photos",
        type=PATH,
        help="Whole photographs in class folders or in a folder with photos.csv, also as .tar.gz.",
    ),
    click.option("--split", help="Split to evaluate on. Default: PrivateTest or test; with --photos, all splits."),
    contempt_option,
    merge_option,
    click.option("--without-duplicates", is_flag=True, help="Exclude images that also occur in another split."),
    click.option(
        "--ferplus",
        type=PATH,
        metavar="CSV",
        help="FER+ votes for FER-2013. The majority of the votes replaces each label.",
    ),
)
@section(
    "Photographs",
    detector_options,
    min_face_option,
    click.option(
        "--mirror/--no-mirror",
        default=True,
        show_default=True,
        help="Classify each face and its mirror image, and average the probabilities, as `run` does with pictures.",
    ),
)
@section(
    "Figures",
    click.option(
        "--protocol",
        type=click.Choice(["center-crop", "center-flip", "ten-crop"]),
        default="center-crop",
        show_default=True,
        help="center-crop: one crop, as in videos on a device. center-flip: mean of the crop and its mirror image. "
        "ten-crop: mean of ten crops, as in papers.",
    ),
    click.option(
        "--recall-of",
        default="",
        metavar="CLASS,CLASS",
        help="Also print the mean recall of these classes.",
    ),
    click.option(
        "--by",
        default="",
        metavar="MEASURE,MEASURE",
        help="Print the accuracy by brightness or, with --photos, by size or pose of the faces.",
    ),
    click.option(
        "--plot", type=PATH, help="Plot confusion matrix, reliability, accuracy and coverage (.png, .svg, .pdf)."
    ),
    click.option(
        "--errors",
        type=PATH,
        metavar="DIR",
        help="Folder for one contact sheet per class. A sheet shows the errors with the highest probability.",
    ),
)
@section(
    "CLIP",
    click.option(
        "--clip",
        "clip_source",
        metavar="FILE|DIR|NAME",
        help="The CLIP that the prompts were trained for, or the CLIP to evaluate zero-shot.",
    ),
    click.option(
        "--descriptions",
        type=PATH,
        metavar="FILE",
        help="With --clip: JSON file of sentences for each class. Default: the sentences of the training.",
    ),
    activation_option,
)
@threads_option
def command(
    out: Output, models: tuple[str, ...], data: Path | None, photos: Path | None, plot: Path | None, **options: Any
) -> None:
    """Measure the accuracy of MODEL.

    MODEL is an .onnx or .ncnn file, a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or
    `distilled`.

    With --data, images are classified without a detector, on the same pixels as on a device. With --photos, the
    detector finds the largest face of each photograph, as `edgekit run --largest` does. Two accuracies are printed: for
    all photographs, and for the photographs with a detected face. In the first accuracy, a photograph without a
    detected face counts as wrong. If there are several models, all of them classify the same faces.

    --by shows which faces are classified worse: it prints the accuracy in bands of a measure. The measures are
    brightness (of the crop), size (short side of the face box) and pose (yaw and roll of the head, from yunet's
    landmarks).

    With --clip, MODEL is a file of trained prompts, or `zero-shot` for the CLIP without prompts. With --clip, images
    are cropped to their central square.

    \b
    Examples:
      edgekit eval fer2013 --data fer2013.tar.gz
      edgekit eval runs/mine/best.safetensors --data fer2013.csv --protocol ten-crop
      edgekit eval mine.onnx --data folders --split test --plot eval.png --json
      edgekit eval default --data fer2013.tar.gz --ferplus ferplus_votes.csv
      edgekit eval default mine.onnx --photos photos --recall-of happy,sad,neutral
      edgekit eval default --photos photos --by brightness,size,pose
      edgekit eval fer2013 --data fer2013.tar.gz --errors out/errors
      edgekit eval runs/moods/best.safetensors --data fer2013.csv --merge good=happy,surprise
          --merge bad=sad,angry
      edgekit eval runs/prompts/best.safetensors --clip ViT-B-16.pt --data fer2013.tar.gz
      edgekit eval zero-shot --clip ViT-B-16.pt --data folders --descriptions mine.json --split test
    """
    if (data is None) == (photos is None):
        raise click.UsageError("give one of --data and --photos")
    refuse_unused(
        click.get_current_context(),
        _ONLY_WITH_DATA if data is None else _ONLY_WITH_PHOTOS,
        "has no effect without --data" if data is None else "has no effect without --photos",
    )
    if len(models) > 1 and (data is not None or plot):
        raise click.UsageError(f"{len(models)} models are given: only --photos without --plot takes more than one")
    if plot:
        from edgekit.models.evaluation.plots import check_plot_path

        check_plot_path(plot)
        check_writable(plot)  # reported before the images are classified
    options["recall_of"] = _names(options["recall_of"])
    options["by"] = _groupings(options["by"], of_photos=photos is not None)
    if photos is not None:
        _on_photos(out, models, photos, plot, options)
    else:
        _on_data(out, models[0], data, plot, options)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def _groupings(text: str, of_photos: bool) -> tuple[str, ...]:
    """Return the measures of --by."""
    names = _names(text)
    if not names:
        return ()
    from edgekit.models.evaluation.bands import GROUPINGS

    known = tuple(GROUPINGS) if of_photos else ("brightness",)
    for name in names:
        if name not in known:
            more = "" if of_photos or name not in GROUPINGS else "; the others need --photos"
            raise click.UsageError(f"--by '{name}' is not a measure: expected {', '.join(known)}{more}")
    return names


def _on_data(out: Output, model: str, data: Path | None, plot: Path | None, options: dict[str, Any]) -> None:
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.models.evaluation.bands import breakdowns
    from edgekit.models.evaluation.plots import save_evaluation
    from edgekit.models.evaluation.run import evaluate

    clip_source, descriptions, activation, recall_of = (options.pop(name) for name in (*_CLIP_OPTIONS, "recall_of"))
    by = options.pop("by")
    for name in _ONLY_WITH_PHOTOS:
        options.pop(name)
    assert data is not None
    if clip_source is None and (descriptions or activation or model == "zero-shot"):
        raise click.UsageError("zero-shot, --descriptions and --activation need --clip")
    with progress_bar(out) as bars:
        messages: dict[str, Any] = {"notify": out.say, "progress": by_stage(bars)}
        if clip_source is None:
            [classifier] = _opened([model], options["threads"], recall_of)
            result = evaluate(classifier, data, **options, **messages)
        else:
            result = _evaluate_clip(clip_source, model, descriptions, activation, data, options, messages)
    title = f"on {result.dataset} {result.split}, {options['protocol']}"
    broken_down = breakdowns(result, by, recall_of)
    protocol, without_duplicates = options["protocol"], options["without_duplicates"]
    document = evaluation_document(result, model, protocol, without_duplicates, recall_of, broken_down)
    out.say(f"{model} {title}")
    print_evaluation(out, result, recall_of)
    print_breakdowns(out, broken_down)
    if options["errors"]:
        out.say(f"contact sheets of errors: {options['errors']}")
    if plot:
        save_evaluation(plot, result, f"{Path(model).name} {title}")
        out.say(f"confusion matrix, reliability, accuracy and coverage: {plot}")
    out.result(document)


def _on_photos(out: Output, models: tuple[str, ...], photos: Path, plot: Path | None, options: dict[str, Any]) -> None:
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.models.evaluation.bands import GROUPINGS, breakdowns, has_measure
    from edgekit.models.evaluation.photos import evaluate_photos
    from edgekit.models.evaluation.plots import save_evaluation

    recall_of = options["recall_of"]
    classifiers = _opened(models, options["threads"], recall_of)
    with progress_bar(out) as bars:
        results = evaluate_photos(
            classifiers,
            photos,
            split=options["split"],
            detector=options["detector_name"] or "yunet",
            detector_model=options["detector_model"],
            detector_size_px=options["detector_size"],
            min_face_px=options["min_face"],
            mirror=options["mirror"],
            threads=options["threads"],
            notify=out.say,
            progress=by_stage(bars),
        )
    by = []
    for result in results:
        measured = [name for name in options["by"] if has_measure(result.with_face, GROUPINGS[name][0])]
        by.append(breakdowns(result.with_face, measured, recall_of))
    document = photos_document(photos, models, results, recall_of, by)
    for model, result, broken_down in zip(models, results, by, strict=True):
        print_photos(out, model, result, recall_of)
        print_breakdowns(out, broken_down)
    if plot:
        title = f"{Path(models[0]).name} on {results[0].with_face.dataset}"
        save_evaluation(plot, results[0].with_face, f"{title}, photographs with a face")
        out.say(f"confusion matrix, reliability, accuracy and coverage: {plot}")
    out.result(document)
    # A measure that the detector did not give is an error, but only now: the evaluation took long.
    for result in results:
        breakdowns(result.with_face, options["by"])


def _opened(models: Sequence[str], threads: int | None, recall_of: Sequence[str]) -> list[CropClassifier]:
    """Load the models, and check before any measurement that each has the classes of --recall-of."""
    from edgekit.models.evaluation.evaluate import check_labels, open_named

    classifiers = [open_named(model, threads) for model in models]
    for classifier in classifiers:
        check_labels(recall_of, classifier.contract.labels)
    return classifiers


def _evaluate_clip(
    clip_source: str,
    model: str,
    descriptions: Path | None,
    activation: Any,
    data: Path,
    options: dict[str, Any],
    messages: dict[str, Any],
) -> Evaluation:
    """Evaluate trained prompts, or a CLIP alone where `model` is "zero-shot"."""
    from edgekit.errors import InputError
    from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
    from edgekit.models.clip.opening import open_clip_classifier
    from edgekit.models.data import DataSet
    from edgekit.models.data.sheets import check_sheet_folder
    from edgekit.models.evaluation.run import evaluate, read_evaluation_data
    from edgekit.models.torch_threads import set_torch_threads

    set_torch_threads(options["threads"])
    if options["merges"] and options["ferplus"]:
        raise InputError("--merge with --ferplus is for nets: leave one of them out for a CLIP")
    if options["errors"]:
        check_sheet_folder(options["errors"], data)

    def read(size_px: int) -> DataSet:
        return read_evaluation_data(data, size_px, "clip", options["merges"], options["contempt"], **messages)

    prompts = None if model == "zero-shot" else resolve_model(model, (CHECKPOINT_SUFFIX,))
    notify = messages["notify"]
    classifier, dataset = open_clip_classifier(clip_source, prompts, descriptions, read, notify, activation)
    return evaluate(classifier, dataset, **{**options, "merges": ()}, **messages)  # merged when they were read
