"""`edgekit eval`: accuracy of a checkpoint or an exported file on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import PATH, activation_option, contempt_option, merge_option, threads_option
from edgekit.cli.output import Output, common_options, one_line

if TYPE_CHECKING:
    from edgekit.models.evaluation.evaluate import Evaluation

_MAX_COLUMNS = 4096


@click.command("eval", short_help="Measure accuracy on a data set.")
@click.argument("model")
@click.option("--data", type=PATH, required=True, help="Folders, .tar.gz, fer2013.csv or .h5.")
@click.option("--split", help="Split to evaluate on; default: PrivateTest or test.")
@click.option(
    "--protocol",
    type=click.Choice(["center-crop", "ten-crop"]),
    default="center-crop",
    show_default=True,
    help="center-crop: as on the device; ten-crop: mean over ten crops, as in papers.",
)
@click.option("--without-duplicates", is_flag=True, help="Exclude images that occur in another split too.")
@click.option("--clip", "clip_source", metavar="NAME|FILE", help="CLIP for trained prompts or for zero-shot.")
@click.option(
    "--descriptions",
    type=PATH,
    metavar="FILE",
    help="With --clip: sentences for the classes of the data; default: those of the training.",
)
@click.option("--plot", type=PATH, help="Plot confusion matrix and reliability diagram (.png, .svg, .pdf).")
@activation_option
@merge_option
@contempt_option
@threads_option
@common_options
def command(
    out: Output,
    model: str,
    data: Path,
    plot: Path | None,
    clip_source: str | None,
    descriptions: Path | None,
    activation: Any,
    **options: Any,
) -> None:
    """Measure the accuracy of MODEL: an .onnx or .ncnn file, a .safetensors checkpoint, `default` or `distilled`.

    All forms are evaluated on the same pixels, cropped by the code that runs on the device. With --clip, MODEL is a
    file of trained prompts, or `zero-shot` for the CLIP alone; images are then cropped to their central square.

    \b
    Examples:
      edgekit eval default --data fer2013.tar.gz
      edgekit eval runs/mine/best.safetensors --data fer2013.csv --protocol ten-crop
      edgekit eval mine.onnx --data folders --split test --plot eval.png --json
      edgekit eval runs/moods/best.safetensors --data fer2013.csv --merge good=happy,surprise
          --merge bad=sad,angry
      edgekit eval runs/prompts/best.safetensors --clip ViT-B-16.pt --data fer2013.tar.gz
      edgekit eval zero-shot --clip ViT-B-16.pt --data folders --descriptions mine.json --split test
    """
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.models.evaluation.plots import check_plot_path, save_evaluation
    from edgekit.models.evaluation.run import evaluate

    if plot:
        check_plot_path(plot)
    if clip_source is None and (descriptions or activation or model == "zero-shot"):
        raise click.UsageError("zero-shot, --descriptions and --activation need --clip")
    with progress_bar(out) as bars:
        messages: dict[str, Any] = {"notify": out.say, "progress": by_stage(bars)}
        if clip_source is None:
            result = evaluate(model, data, **options, **messages)
        else:
            result = _evaluate_clip(clip_source, model, descriptions, activation, data, options, messages)
    title = f"on {result.dataset} {result.split}, {options['protocol']}"
    out.say(f"{model} {title}")
    _print_tables(out, result)
    if plot:
        save_evaluation(plot, result, f"{Path(model).name} {title}")
        out.say(f"confusion matrix and reliability diagram: {plot}")
    out.result(_document(result, model, options["protocol"], options["without_duplicates"]))


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
    from edgekit.models.clip.opening import open_clip_classifier
    from edgekit.models.data import DataSet
    from edgekit.models.evaluation.run import evaluate, read_evaluation_data
    from edgekit.models.torch_threads import set_torch_threads

    if options["threads"]:
        set_torch_threads(options["threads"])

    def read(size_px: int) -> DataSet:
        return read_evaluation_data(data, size_px, "clip", options["merges"], options["contempt"], **messages)

    prompts = None if model == "zero-shot" else Path(model)
    notify = messages["notify"]
    classifier, dataset = open_clip_classifier(clip_source, prompts, descriptions, read, notify, activation)
    return evaluate(classifier, dataset, **options, **messages)


def _document(result: Evaluation, model: str, protocol: str, without_duplicates: bool) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": result.dataset,
        "split": result.split,
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
    # In a narrow terminal, wrapped lines are readable and truncated columns are not.
    needed = Measurement.get(console, console.options.update(width=_MAX_COLUMNS), table).maximum
    console.width = max(console.width, needed)
    console.print(table)
    out.say(
        f"accuracy {result.accuracy:.2%} ({result.correct} of {result.total}), cross-entropy {result.loss:.3f}, "
        f"calibration error {result.calibration.expected_error:.3f}"
    )
