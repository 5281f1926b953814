"""`edgekit train`: train a net on a data set."""

from __future__ import annotations

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.training_view import training_view
from edgekit.models.training.options import TrainOptions

# The commands for what earlier versions trained with --model.
_MOVED = {"hicropl": "train-prompts", "clip-mini": "train-clip"}


@edgekit_command("train", short_help="Train a classifier on a data set.", options=TrainOptions)
def command(out: Output, options: TrainOptions) -> None:
    """Train a classifier on a data set.

    The output folder receives best.safetensors (the model), last.pt (for --resume), metrics.jsonl and curves.png
    (loss and accuracy per epoch). The recipe fer2013 saves the epoch that is best on the validation split. The recipes
    camera, adapt and fine-tune save the last epoch.

    To train in several processes or on several machines, start this command with torchrun.

    \b
    Examples:
      edgekit train --data fer2013.tar.gz -o runs/mine
      edgekit train --data flowers -o runs/flowers
      edgekit train --data flowers --model timm/mobilenetv3_small_100 --init weights.pth -o runs/mobile
      edgekit train --data fer2013.csv -o runs/short --epochs 2 --precision bf16
      edgekit train --data fer2013.tar.gz -o runs/mine --resume
      edgekit train --data my-faces --init default --recipe adapt -o runs/adapted
      edgekit train --data fer2013.csv --ferplus fer2013new.csv -o runs/votes
      edgekit train --data fer2013.csv --merge good=happy,surprise --merge bad=sad,angry -o runs/moods
    """
    from edgekit.models.train import train
    from edgekit.models.training.machine import is_first_process

    if options.model in _MOVED:
        raise click.UsageError(f"--model {options.model} is a command of its own: edgekit {_MOVED[options.model]}")
    with training_view(out, options.output) as view:
        result = train(**vars(options) | view.callbacks)
    if is_first_process():
        out.result(result.document())
