"""`edgekit import`: convert checkpoints of other projects."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.command import Command
from edgekit.cli.options import PATH
from edgekit.cli.output import Output


@click.command("import", cls=Command, short_help="Convert a checkpoint of the EdgeCNN authors.")
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The .safetensors file to write.")
@click.option("--labels", help="Class names in output order, separated by commas; default: the seven of FER-2013.")
@click.option(
    "--dataset", "dataset_name", default="fer2013", show_default=True, help="Data set that the net was trained on."
)
@click.option("--color", is_flag=True, help="The net was trained on colour images, as for RAF-DB.")
def command(out: Output, file: Path, output: Path, labels: str | None, dataset_name: str, color: bool) -> None:
    """Convert a checkpoint of the EdgeCNN authors' released code to safetensors.

    No code in FILE is executed. A pickle that contains other objects than tensors is refused.

    \b
    Examples:
      edgekit import PrivateTest_model.t7 -o authors.safetensors
      edgekit import raf_model.t7 -o raf.safetensors --dataset raf-db --color
    """
    from edgekit.models.checkpoints.checkpoint import check_checkpoint_output, save_checkpoint
    from edgekit.models.data import EXPRESSIONS
    from edgekit.models.model_loading import import_authors_checkpoint

    check_checkpoint_output(output, [file])
    names = tuple(name.strip() for name in labels.split(",")) if labels else EXPRESSIONS
    checkpoint = import_authors_checkpoint(file, names, dataset_name, gray=not color)
    save_checkpoint(output, checkpoint)
    out.say(f"{output}: {checkpoint.contract.architecture}, {len(names)} classes")
    out.result({"checkpoint": str(output), "architecture": checkpoint.contract.architecture, "labels": list(names)})
