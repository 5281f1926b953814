"""`edgekit train-clip`: pretrain a small CLIP on faces."""

from __future__ import annotations

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.training_view import training_view
from edgekit.models.clip.options import MiniClipOptions


@edgekit_command("train-clip", short_help="Pretrain a small CLIP, without a download.", options=MiniClipOptions)
def command(out: Output, options: MiniClipOptions) -> None:
    """Pretrain a small CLIP of 48x48 pixels on labelled images, whose captions are composed from the labels.

    The epoch with the highest zero-shot accuracy is saved. `train-prompts` trains prompts for the CLIP.

    \b
    Examples:
      edgekit train-clip --data fer2013.tar.gz -o runs/clip
      edgekit train-clip --data fer2013.tar.gz --trunk default --ferplus ferplus_votes.csv
          --teacher default -o runs/clip
    """
    from edgekit.models.train_clip import train_clip
    from edgekit.models.training.machine import is_first_process

    with training_view(out, options.output) as view:
        result = train_clip(**vars(options) | view.callbacks)
    if is_first_process():
        out.result(result.document())
