"""`edgekit embed`: give a trained net the embedding space of a CLIP, and so labels by text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.command import Command
from edgekit.cli.options import PATH, activation_option, threads_option
from edgekit.cli.output import Output, picked


@click.command("embed", cls=Command, short_help="Give a trained net a CLIP's embedding space, for labels by text.")
@click.argument("model")
@click.option(
    "--teacher",
    required=True,
    metavar="DIR|FILE|NAME",
    help="Prompts trained for a CLIP, a CLIP file, or an open_clip name.",
)
@click.option("--clip", metavar="FILE|DIR|NAME", help="The CLIP that the teacher's prompts were trained for.")
@click.option("--descriptions", type=PATH, metavar="JSON", help="Sentences per class, for a CLIP without prompts.")
@activation_option
@click.option("--data", type=PATH, required=True, help="Images. Their labels are not used.")
@click.option("--train-split", help="Split with the images. Default: Training or train.")
@click.option("-o", "--output", type=PATH, required=True, help="The .safetensors file to write.")
@click.option(
    "--cache",
    type=PATH,
    metavar="DIR",
    help="Folder for the cached outputs of the teacher. Default: a folder beside --output.",
)
@threads_option
def command(out: Output, model: str, teacher: str, data: Path, output: Path, **values: Any) -> None:
    """Replace the last layer of a trained net by a projector into the embedding space of a CLIP.

    The most probable class of each face does not change, and `export --class` can give the net other labels by text.
    Nothing is trained: the teacher computes the embedding of each image, and the projector is fitted by least squares.
    The net must have the classes of the teacher.

    If the CLIP was trained by `edgekit train`, its text tower is written beside the net, as NAME.text.safetensors. With
    both files in one folder, `export --class` does not need the CLIP.

    \b
    Examples:
      edgekit embed default --teacher runs/prompts --clip runs/mini/best.safetensors
          --data fer2013.tar.gz -o student.safetensors
      edgekit export student.safetensors --class "smiling face" --class "serious face"
          -o smile.onnx
    """
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.models.distill.embed import embed

    with progress_bar(out) as bars:
        result = embed(model, teacher, data, output, **values, notify=out.say, progress=by_stage(bars))
    out.say(f"{result.checkpoint}: {result.architecture}, fitted to {result.images} images")
    if result.text_tower is not None:
        out.say(f"{result.text_tower}: the text tower of the teacher, for labels by text")
    text_tower = {} if result.text_tower is None else {"text_tower": str(result.text_tower)}
    out.result({"checkpoint": str(result.checkpoint), **text_tower, **picked(result, "architecture", "images")})
