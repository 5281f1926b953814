"""`edgekit import`: attach a contract to an ONNX classifier, or convert a checkpoint of the EdgeCNN authors."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click
from click.core import ParameterSource

from edgekit.cli.command import command as make_command
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output
from edgekit.export.foreign.import_options import ImportOptions, read_labels
from edgekit.model_store import ONNX_SUFFIX
from edgekit.text import first_of

_OF_AUTHORS = ("dataset_name", "color")


@make_command("import", short_help="Attach a contract to an ONNX classifier of another program.", options=ImportOptions)
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The .onnx or .safetensors file to write.")
@click.option(
    "--labels",
    metavar="A,B,C|FILE.txt",
    help="Classes in output order, or a text file with one per line. Default: those that the file states; for a "
    "checkpoint of the EdgeCNN authors the seven of FER-2013.",
)
@click.option(
    "--dataset",
    "dataset_name",
    default="fer2013",
    show_default=True,
    help="Checkpoint of the EdgeCNN authors: data set that the net was trained on.",
)
@click.option("--color", is_flag=True, help="Checkpoint of the EdgeCNN authors: trained on colour images.")
@click.pass_context
def command(
    ctx: click.Context,
    out: Output,
    options: ImportOptions,
    file: Path,
    output: Path,
    labels: str | None,
    dataset_name: str,
    color: bool,
) -> None:
    """Attach a contract to an ONNX classifier of another program, so that every command takes it, also on a board.

    Classes, size and normalisation are read from what Ultralytics, OpenVINO's Model API and timm's config.json state;
    options replace these statements. The new file is compared with the old one before it is written.

    FILE can also be a checkpoint of the EdgeCNN authors' released code, which becomes a .safetensors file. No code in
    FILE is executed.

    \b
    Examples:
      edgekit import yolo11n-cls.onnx -o objects.onnx
      edgekit import resnet18.onnx -o flowers.onnx --labels daisy,rose,tulip
      edgekit import PrivateTest_model.t7 -o authors.safetensors
      edgekit import raf_model.t7 -o raf.safetensors --dataset raf-db --color
    """
    if file.suffix != ONNX_SUFFIX:
        _refuse_unused(ctx, set(_names(ctx)) - {"labels", *_OF_AUTHORS}, "is for .onnx files")
        _convert_checkpoint(out, file, output, labels, dataset_name, color)
        return
    _refuse_unused(ctx, _OF_AUTHORS, "is for checkpoints of the EdgeCNN authors")
    from edgekit.export.foreign.import_onnx import import_onnx

    imported = import_onnx(file, output, read_labels(labels) if labels else None, options, out.warn)
    for note in imported.notes:
        out.say(note)
    contract = imported.contract
    height, width = contract.input.size_hw
    classes = f"{len(contract.labels)} classes: {first_of(contract.labels, 8)}"
    out.say(f"{output}: {width}x{height} px {contract.input.channels}, {classes}")
    out.result(
        {
            "model": str(output),
            "labels": list(contract.labels),
            "size_hw": list(contract.input.size_hw),
            "subject": contract.subject,
            "notes": list(imported.notes),
        }
    )


def _refuse_unused(context: click.Context, parameters: Collection[str], reason: str) -> None:
    """Check that none of the options is given, because they would have no effect.

    Args:
        context: The parsed command.
        parameters: Names of the options' parameters.
        reason: Completes the message "--option …", such as "has no effect without --eval".

    Raises:
        click.UsageError: One of the options is given.
    """
    for each in context.command.params:
        if each.name in parameters and context.get_parameter_source(each.name) is not ParameterSource.DEFAULT:
            negated = each.secondary_opts and context.params[each.name] is False
            name = (each.secondary_opts if negated else each.opts)[0]
            raise click.UsageError(f"{name} {reason}: leave it out", context)


def _names(ctx: click.Context) -> list[str]:
    return [name for name in ctx.params if name not in ("file", "output", "as_json", "debug", "quiet")]


def _convert_checkpoint(
    out: Output, file: Path, output: Path, labels: str | None, dataset_name: str, color: bool
) -> None:
    from edgekit.models.checkpoint import check_checkpoint_output, save_checkpoint
    from edgekit.models.data import EXPRESSIONS
    from edgekit.models.model_loading import import_authors_checkpoint

    check_checkpoint_output(output, [file])
    names = read_labels(labels) if labels else EXPRESSIONS
    checkpoint = import_authors_checkpoint(file, names, dataset_name, gray=not color)
    save_checkpoint(output, checkpoint)
    out.say(f"{output}: {checkpoint.contract.architecture}, {len(names)} classes")
    out.result({"checkpoint": str(output), "architecture": checkpoint.contract.architecture, "labels": list(names)})
