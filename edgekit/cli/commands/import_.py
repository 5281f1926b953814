"""`edgekit import`: attach a contract to an ONNX classifier, or convert a checkpoint of the EdgeCNN authors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from edgekit.cli.command import command as make_command
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output
from edgekit.export.foreign.import_options import ImportOptions, read_labels
from edgekit.model_store import ONNX_SUFFIX
from edgekit.text import first_of


@make_command("import", short_help="Prepare an ONNX classifier of another program.", options=ImportOptions)
@click.argument("file", type=PATH)
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="FILE", help="The .onnx or .safetensors file to write."
)
@click.option(
    "--labels",
    metavar="A,B,C|FILE.txt",
    help="Classes in the order of the outputs, or a text file with one class per line. Default: those in FILE; for a "
    "checkpoint of the EdgeCNN authors, the seven of FER-2013.",
)
@click.option(
    "--dataset",
    "dataset_name",
    metavar="NAME",
    help="For a checkpoint of the EdgeCNN authors: the data set of its training.  [default: fer2013]",
)
def command(
    out: Output, options: ImportOptions, file: Path, output: Path, labels: str | None, dataset_name: str | None
) -> None:
    """Prepare an ONNX classifier of another program for edgekit: all commands can use the new file, also on a board.

    The new file contains classes, input size and normalisation. They are read from the metadata of Ultralytics or
    OpenVINO's Model API in FILE, or from timm's config.json beside it. Options replace what is read. Before the new
    file is written, its outputs are compared with those of FILE.

    FILE can also be a checkpoint of the EdgeCNN authors' released code, which becomes a .safetensors file. No code in
    FILE is executed.

    \b
    Examples:
      edgekit import yolo11n-cls.onnx -o objects.onnx
      edgekit import resnet18.onnx -o flowers.onnx --labels daisy,rose,tulip
      edgekit import PrivateTest_model.t7 -o authors.safetensors
      edgekit import raf_model.t7 -o raf.safetensors --dataset raf-db --channels rgb
    """
    if file.suffix != ONNX_SUFFIX:
        # Of `options`, a checkpoint takes only --channels rgb, or its default gray.
        has_other_options = replace(options, channels=None) != ImportOptions()
        if has_other_options or options.channels == "bgr":
            raise click.UsageError(
                "only --labels, --dataset and --channels rgb are for checkpoints: leave the others out"
            )
        _convert_checkpoint(out, file, output, labels, dataset_name or "fer2013", gray=options.channels != "rgb")
        return
    if dataset_name is not None:
        raise click.UsageError("--dataset is for checkpoints of the EdgeCNN authors: leave it out")
    from edgekit.export.foreign.import_onnx import import_onnx

    imported = import_onnx(file, output, read_labels(labels) if labels else None, options, out.warn)
    for note in imported.notes:
        out.say(note)
    contract = imported.contract
    height, width = contract.input.size_hw
    classes = f"{len(contract.labels)} classes: {first_of(contract.labels, most=8)}"
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


def _convert_checkpoint(
    out: Output, file: Path, output: Path, labels: str | None, dataset_name: str, gray: bool
) -> None:
    """Write a checkpoint of the EdgeCNN authors as a .safetensors file.

    Without `labels`, its classes are the seven of FER-2013. `gray`: whether its training images were.
    """
    from edgekit.models.checkpoint import check_checkpoint_output, save_checkpoint
    from edgekit.models.data import EXPRESSIONS
    from edgekit.models.model_loading import import_authors_checkpoint

    check_checkpoint_output(output, [file])
    names = read_labels(labels) if labels else EXPRESSIONS
    checkpoint = import_authors_checkpoint(file, names, dataset_name, gray=gray)
    save_checkpoint(output, checkpoint)
    out.say(f"{output}: {checkpoint.contract.architecture}, {len(names)} classes")
    out.result({"checkpoint": str(output), "architecture": checkpoint.contract.architecture, "labels": list(names)})
