"""`edgekit train-prompts`: train prompts for a CLIP with HiCroPL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, TextTable
from edgekit.cli.training_view import training_view
from edgekit.models.clip.options import PromptOptions

if TYPE_CHECKING:
    from edgekit.models.clip.protocols import TaskResult


@edgekit_command("train-prompts", short_help="Train prompts for a CLIP (HiCroPL).", options=PromptOptions)
def command(out: Output, options: PromptOptions) -> None:
    """Train prompts for the CLIP of --clip with HiCroPL (arXiv 2507.14976), and evaluate them according to --task.

    The output folder receives the prompts of the last epoch in best.safetensors, the accuracies with prompts and
    zero-shot in results.json, and the other files of `train`.

    \b
    Examples:
      edgekit train-prompts --clip runs/clip --data fer2013.tar.gz -o runs/prompts
      edgekit train-prompts --clip ViT-B-16.pt --task base-to-novel --data split_zhou_DTD.json -o runs/dtd
      edgekit train-prompts --clip ViT-B-16/openai --task cross-dataset --data caltech --eval-data dtd
          -o runs/cross
    """
    from edgekit.models.clip.train_prompts import train_prompts

    with training_view(out, options.output) as view:
        result = train_prompts(**vars(options) | view.callbacks)
    if result.evaluation is not None:  # None in all but the first process of torchrun
        _print_accuracies(out, result.evaluation)
        out.result(result.document())


def _print_accuracies(out: Output, result: TaskResult) -> None:
    """Print the accuracy with prompts and zero-shot of each evaluation, and their summary, such as a harmonic mean."""
    rows = [
        (score.name, str(score.images), f"{score.accuracy:.2%}", f"{score.zero_shot_accuracy:.2%}")
        for score in result.scores
    ]
    out.show(TextTable(("evaluated on", "images", "with prompts", "zero-shot"), rows, ("evaluated on",)))
    out.say(", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in result.summary.items()))
