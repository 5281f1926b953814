"""`edgekit average`: average the weights of several trained nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.command import Command
from edgekit.cli.options import PATH, SEED, NumberRange, refuse_unused
from edgekit.cli.output import Output, picked
from edgekit.models.training.options import MAX_PRIOR_STRENGTH


@click.command("average", cls=Command, short_help="Average the weights of several trained nets.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
@click.option("-o", "--output", type=PATH, required=True, help="The .safetensors file to write.")
@click.option("--data", type=PATH, help="Training data for the BatchNorm statistics and the calibration.")
@click.option(
    "--ferplus",
    type=PATH,
    metavar="CSV",
    help="FER+ votes for FER-2013. The calibration uses the majorities of the votes as labels.",
)
@click.option(
    "--prior-strength",
    type=NumberRange(-MAX_PRIOR_STRENGTH, MAX_PRIOR_STRENGTH),
    default=0.0,
    show_default=True,
    metavar="T",
    help="Subtract T times the logarithm of each class's share from the logits. Below 0, the recall of common classes "
    "rises. The shares are those of the nets that were trained with --prior-strength.",
)
@click.option("--train-split", help="Split for the training. Default: Training or train.")
@click.option(
    "--val-split",
    help="Split for the calibration. Default: PublicTest or val; without them, a part of the training split.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, metavar="N", help="Seed of the crops.")
def command(out: Output, models: tuple[str, ...], output: Path, data: Path | None, **values: Any) -> None:
    """Average the weights of nets whose trainings started from the same weights (a uniform model soup).

    The nets must have the same architecture and labels. Calibrations and logit adjustments (--prior-strength) of the
    nets are undone, but not the adjustments of nets that 'edgekit embed' has changed. With --data, the BatchNorm
    statistics are computed on the training split, and the result is calibrated. Without --data, the BatchNorm
    statistics are averaged, too, and the result is not calibrated. Give --ferplus if the nets were trained towards the
    votes: with --ferplus-labels soft or majority, or with mixed and a --label-weight below 0.5.

    \b
    Examples:
      edgekit average runs/seed0 runs/seed1 runs/seed2 --data fer2013.tar.gz -o soup.safetensors
      edgekit eval soup.safetensors --data fer2013.tar.gz --split PublicTest --protocol ten-crop
    """
    if data is None:
        refuse_unused(
            click.get_current_context(), ("ferplus", "train_split", "val_split", "seed"), "has no effect without --data"
        )
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.models.average import average_checkpoints

    with progress_bar(out) as bars:
        result = average_checkpoints(models, output, data, **values, notify=out.say, progress=by_stage(bars))
    out.say(f"{result.checkpoint}: {result.architecture}, the average of {len(models)} models")
    more = picked(result, "architecture", "temperature")
    out.result({"checkpoint": str(result.checkpoint), "models": models, **more})
