"""`edgekit embed`: give a trained net the embedding space of a CLIP, and so labels by text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, picked
from edgekit.options import Options, option
from edgekit.shared_options import threads


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(Options):
    """The teacher, the images, and the file to write."""

    teacher: str = option(
        "--teacher",
        "Prompts trained for a CLIP, a CLIP file, or an open_clip name.",
        metavar="DIR|FILE|NAME",
        required=True,
    )
    clip: str | None = option(
        "--clip", "The CLIP that the teacher's prompts were trained for.", metavar="FILE|DIR|NAME"
    )
    descriptions: Path | None = option(
        "--descriptions", "Sentences per class, for a CLIP without prompts.", metavar="JSON"
    )
    activation: Literal["gelu", "quick-gelu"] | None = option(
        "--activation",
        "Activation function of the CLIP, if its file does not name it. OpenAI's weights need quick-gelu.",
    )
    data: Path = option("--data", "Images. Their labels are not used.", metavar="DATA", required=True)
    train_split: str | None = option(
        "--train-split", "Split with the images. Default: Training or train.", metavar="NAME"
    )
    output: Path = option("--output", "The .safetensors file to write.", short="-o", metavar="FILE", required=True)
    cache: Path | None = option(
        "--cache",
        "Folder for the cached outputs of the teacher. Default: a folder beside --output.",
        metavar="DIR",
    )
    threads: int | None = threads()


@edgekit_command(
    "embed", short_help="Give a trained net a CLIP's embedding space, for labels by text.", options=EmbedOptions
)
@click.argument("model")
def command(out: Output, model: str, options: EmbedOptions) -> None:
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
    from edgekit.cli.progress import reported
    from edgekit.models.distill.embed import embed

    with reported(out) as callbacks:
        result = embed(model, **vars(options) | callbacks)
    out.say(f"{result.checkpoint}: {result.architecture}, fitted to {result.images} images")
    if result.text_tower is not None:
        out.say(f"{result.text_tower}: the text tower of the teacher, for labels by text")
    text_tower = {} if result.text_tower is None else {"text_tower": str(result.text_tower)}
    out.result({"checkpoint": str(result.checkpoint), **text_tower, **picked(result, "architecture", "images")})
