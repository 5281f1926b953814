"""`edgekit eval`: the accuracy of a checkpoint or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import PATH, activation_option, contempt_option, merge_option, threads_option
from edgekit.cli.output import Output, common_options, one_line

if TYPE_CHECKING:
    from edgekit.models.data import DataSet
    from edgekit.models.data.readers import Fit
    from edgekit.models.evaluation.evaluate import Evaluation

_WIDEST = 4096


@click.command("eval", short_help="Measure accuracy on a data set.")
@click.argument("model")
@click.option("--data", type=PATH, required=True, help="Folders, .tar.gz, fer2013.csv or .h5.")
@click.option("--split", help="Split to measure on; default: PrivateTest or test.")
@click.option(
    "--protocol",
    type=click.Choice(["center-crop", "ten-crop"]),
    default="center-crop",
    show_default=True,
    help="center-crop is what a Pi runs.",
)
@click.option("--without-duplicates", is_flag=True, help="Leave out images that another split has too.")
@click.option("--clip", "clip_source", metavar="NAME|FILE", help="The CLIP that prompts belong to, or for zero-shot.")
@click.option(
    "--descriptions",
    type=PATH,
    metavar="FILE",
    help="With --clip: sentences for the data's classes, which take the place of those trained on.",
)
@click.option("--plot", type=PATH, help="Draw confusion and reliability (.png, .svg, .pdf).")
@activation_option
@merge_option
@contempt_option
@threads_option
@common_options
def command(
    out: Output,
    model: str,
    data: Path,
    split: str | None,
    protocol: Any,
    without_duplicates: bool,
    clip_source: str | None,
    descriptions: Path | None,
    plot: Path | None,
    activation: Any,
    merges: tuple[str, ...],
    contempt: str,
    threads: int | None,
) -> None:
    """Measure the accuracy of MODEL: an .onnx file, a .safetensors checkpoint, `default` or `distilled`.

    Both forms see the same pixels, cut by the code the Pi runs. With --clip, MODEL is a file of trained prompts, or
    `zero-shot` for the CLIP alone; pictures are then made square as CLIP's authors do.

    \b
    Examples:
      edgekit eval default --data fer2013.tar.gz
      edgekit eval runs/mine/best.safetensors --data fer2013.csv --protocol ten-crop
      edgekit eval mine.onnx --data folders --split test --plot eval.png --json
      edgekit eval runs/moods/best.safetensors --data fer2013.csv --merge good=happy,surprise --merge bad=sad,angry
      edgekit eval runs/prompts/best.safetensors --clip ViT-B-16.pt --data fer2013.tar.gz
      edgekit eval zero-shot --clip ViT-B-16.pt --data folders --descriptions mine.json --split test
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.model_store import resolve_model
    from edgekit.models import data as datasets
    from edgekit.models.clip.checkpoint import is_prompts_file
    from edgekit.models.clip.classifier import CLIPS
    from edgekit.models.clip.opening import open_clip_classifier
    from edgekit.models.data.merging import merge_classes, parse_merges, say_left_out
    from edgekit.models.data.readers import load_dataset
    from edgekit.models.evaluation.evaluate import aligned, evaluate, open_classifier
    from edgekit.models.evaluation.plots import check_picture, save_evaluation
    from edgekit.models.torch_threads import set_torch_threads

    if plot:
        check_picture(plot)
    if threads:
        set_torch_threads(threads)
    if clip_source is None and (descriptions or activation or model == "zero-shot"):
        raise click.UsageError("zero-shot, --descriptions and --activation need --clip")
    with progress_bar(out) as progress:
        reading = counted(progress, "reading images")

        def read(side_px: int, fit: Fit) -> DataSet:
            dataset = load_dataset(data, side_px, reading, contempt=contempt, say=out.say, fit=fit)
            if not merges:
                return dataset
            parsed = parse_merges(merges, dataset.classes)
            say_left_out(parsed, dataset.classes, out.say)
            return merge_classes(dataset, parsed)

        if clip_source is None:
            path = resolve_model(model)
            if is_prompts_file(path):
                raise click.UsageError(f"'{model}' holds trained prompts: name the CLIP they are for with --clip")
            classifier = open_classifier(path, threads)
            height, _ = classifier.contract.crop.resize_hw
            dataset = read(height, "center" if classifier.contract.architecture in CLIPS else "stretch")
        else:
            prompts = None if model == "zero-shot" else Path(model)
            classifier, dataset = open_clip_classifier(
                clip_source,
                prompts,
                descriptions,
                lambda side_px: read(side_px, "center"),
                out.say,
                activation,
            )
        split = datasets.split_to_measure(dataset, split)
        part = datasets.without_duplicates(dataset, split) if without_duplicates else dataset.split(split)
        images = aligned(dataset, part, classifier.contract)
        result = evaluate(classifier, images, protocol, counted(progress, "classifying"))
    out.say(f"{model} on {dataset.name} {split}, {protocol}")
    _print_tables(out, result)
    if plot:
        save_evaluation(plot, result, f"{Path(model).name} on {dataset.name} {split}, {protocol}")
        out.say(f"confusion matrix and reliability diagram: {plot}")
    out.result(
        {
            "model": model,
            "dataset": dataset.name,
            "split": split,
            "protocol": protocol,
            "without_duplicates": without_duplicates,
            "accuracy": result.accuracy,
            "correct": result.correct,
            "total": result.total,
            "per_class": result.per_class,
            "loss": result.loss,
            "calibration_error": result.calibration.expected_error,
            "labels": list(result.labels),
            "confusion": result.confusion.tolist(),
        }
    )


def _print_tables(out: Output, result: Evaluation) -> None:
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("true class", "recall", *result.labels):
        table.add_column(Text(one_line(column)), justify="left" if column == "true class" else "right", no_wrap=True)
    for index, (label, recall) in enumerate(result.per_class.items()):
        cells = (str(count) for count in result.confusion[index])
        table.add_row(Text(one_line(label)), "-" if recall is None else f"{recall:.2%}", *cells)
    console = out.console
    # Lines that a narrow terminal breaks tell more than columns without their ends.
    console.width = max(console.width, Measurement.get(console, console.options.update(width=_WIDEST), table).maximum)
    console.print(table)
    out.say(
        f"accuracy {result.accuracy:.2%} ({result.correct} of {result.total}), cross-entropy {result.loss:.3f}, "
        f"calibration error {result.calibration.expected_error:.3f}"
    )
