"""`edgekit average`: average the weights of several trained nets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, picked
from edgekit.models.training.options import MAX_PRIOR_STRENGTH
from edgekit.options import Options, option
from edgekit.shared_options import MAX_SEED


@dataclass(frozen=True, kw_only=True)
class AverageOptions(Options):
    """The file of the average, and the data of its statistics."""

    output: Path = option("--output", "The .safetensors file to write.", short="-o", metavar="FILE", required=True)
    data: Path | None = option(
        "--data", "Training data for the BatchNorm statistics and the calibration.", metavar="DATA"
    )
    ferplus: Path | None = option(
        "--ferplus",
        "FER+ votes for FER-2013. The calibration uses the majorities of the votes as labels.",
        metavar="CSV",
        needs="--data",
    )
    prior_strength: float = option(
        "--prior-strength",
        "Subtract T times the logarithm of each class's share from the logits. Below 0, the recall of common classes "
        "rises. The shares are those of the nets that were trained with --prior-strength.",
        default=0.0,
        metavar="T",
        least=-MAX_PRIOR_STRENGTH,
        most=MAX_PRIOR_STRENGTH,
    )
    train_split: str | None = option(
        "--train-split", "Split for the training. Default: Training or train.", metavar="NAME", needs="--data"
    )
    val_split: str | None = option(
        "--val-split",
        "Split for the calibration. Default: PublicTest or val; without them, a part of the training split.",
        metavar="NAME",
        needs="--data",
    )
    seed: int = option("--seed", "Seed of the crops.", default=0, least=0, most=MAX_SEED, needs="--data")


@edgekit_command("average", short_help="Average the weights of several trained nets.", options=AverageOptions)
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
def command(out: Output, models: tuple[str, ...], options: AverageOptions) -> None:
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
    from edgekit.cli.progress import reported
    from edgekit.models.average import average_checkpoints

    with reported(out) as callbacks:
        result = average_checkpoints(models, **vars(options) | callbacks)
    out.say(f"{result.checkpoint}: {result.architecture}, the average of {len(models)} models")
    more = picked(result, "architecture", "temperature")
    out.result({"checkpoint": str(result.checkpoint), "models": models, **more})
