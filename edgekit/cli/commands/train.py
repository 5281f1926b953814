"""`edgekit train`: train a net, prompts for a CLIP, or a small CLIP on a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command, is_set, section
from edgekit.cli.options import contempt_option, merge_option, refuse_unused
from edgekit.cli.output import Output, TextTable
from edgekit.cli.train.clip import clip_options
from edgekit.cli.train.training_options import calibrate_option, data_options, training_options, training_view
from edgekit.models.training.options import TrainingOptions

if TYPE_CHECKING:
    from edgekit.models.clip.protocols import TaskResult

_PROMPTS, _MINI = "hicropl", "clip-mini"


@click.command("train", cls=Command, short_help="Train a classifier on a data set.")
@section(
    "Model",
    click.option(
        "--model",
        help="efficientnet-lite0, edgecnn, edgecnn-branched, edgecnn-wide, edgecnn-g, edgecnn-g-learned, "
        "mini-xception, mobilenetv2, mobilenetv3-small, shufflenetv2-x0.5, timm/NAME or torchvision/NAME; hicropl "
        "(prompts for a CLIP) or clip-mini (a small CLIP). Default: edgecnn for faces, efficientnet-lite0 for whole "
        "images.",
    ),
    click.option(
        "--image-size",
        type=click.IntRange(48, 224),
        metavar="PX",
        help="Side of the kept images in pixels, for nets that accept any size (not EdgeCNN); the net's input has "
        "11/12 of it. Default: 176 for pretrained nets, else 48.",
    ),
    click.option(
        "--cache-images",
        type=click.Choice(["auto", "memory", "disk"]),
        default="auto",
        show_default=True,
        help="Place of the decoded images. auto: on disk if the images need more than a quarter of the free memory.",
    ),
)
@data_options
@section(
    "Classes",
    contempt_option,
    click.option(
        "--balance",
        type=click.Choice(["none", "loss", "sampler"]),
        help="Give rare and common classes equal influence, by weights in the loss or by balanced sampling. "
        "Default: the recipe's.",
    ),
    merge_option,
    click.option(
        "--subject",
        type=click.Choice(["auto", "face", "image"]),
        default="auto",
        show_default=True,
        help="What the model classifies: each detected face, or the whole image. auto: faces for known face data sets "
        "and gray squares of at most 64 pixels, whole images for everything else.",
    ),
)
@section(
    "Folds",
    click.option(
        "--folds",
        type=click.IntRange(2, 100),
        metavar="K",
        help="Divide the training images into K folds, and train without the fold of --fold.",
    ),
    click.option(
        "--fold",
        type=click.IntRange(0, 99),
        metavar="N",
        help="Number of the fold that is left out, from 0; see --folds.",
    ),
)
@section("Calibration", calibrate_option)
@section("CLIP and prompts", clip_options)
@training_options
def command(out: Output, options: TrainingOptions, model: str | None, **values: Any) -> None:
    """Train a classifier, and save the weights of the epoch that is best on the validation split.

    The output folder receives best.safetensors, last.pt (for --resume), metrics.jsonl, TensorBoard events and
    curves.png (loss and accuracy per epoch). To train in several processes or on several machines, start this command
    with torchrun.

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
      tensorboard --logdir runs

    `--model hicropl` trains prompts for the CLIP of --clip. The prompts of the last epoch are kept and evaluated
    according to --task. The results are written to results.json. `--model clip-mini` pretrains a small CLIP. hicropl
    and clip-mini have default recipes of their own. A help text that starts with a model's name is for this model only.

    \b
      edgekit train --model clip-mini --data fer2013.tar.gz -o runs/mini
      edgekit train --model hicropl --clip runs/mini/best.safetensors --data fer2013.tar.gz
          -o runs/prompts
      edgekit train --model hicropl --clip ViT-B-16.pt --task base-to-novel --data split_zhou_DTD.json
          -o runs/dtd
    """
    from edgekit.models.training.distributed import is_first_process

    context = click.get_current_context()
    kind, train = _training(model)
    names = {field.name for field in fields(kind)} | {"model"}
    foreign = {str(each.name) for each in context.command.params} - names
    refuse_unused(context, foreign, f"has no effect with --model {model}")
    if model == _PROMPTS and values["clip"] is None:
        raise click.UsageError("--model hicropl needs a CLIP: give --clip FILE, or an open_clip name as MODEL/WEIGHTS")
    # Each model has defaults of its own.
    given = {name: value for name, value in {**vars(options), **values}.items() if is_set(context, name)}
    if model is not None and model not in (_PROMPTS, _MINI):
        given["model"] = model
    with training_view(out, options.output) as view:
        result = train(kind(**given), **view.callbacks)
    if is_first_process():
        if model == _PROMPTS:
            _print_accuracies(out, result.evaluation)
        out.result(result.document())


def _training(model: str | None) -> tuple[type[TrainingOptions], Callable[..., Any]]:
    """Return the options of a model's training, and the function that trains it."""
    if model == _PROMPTS:
        from edgekit.models.clip.train_prompts import PromptTrainingOptions, train_prompts

        return PromptTrainingOptions, train_prompts
    if model == _MINI:
        from edgekit.models.clip.train_mini import MiniClipOptions, train_mini

        return MiniClipOptions, train_mini
    from edgekit.models.train import TrainOptions, train

    return TrainOptions, train


def _print_accuracies(out: Output, result: TaskResult) -> None:
    rows = [
        (score.name, str(score.images), f"{score.accuracy:.2%}", f"{score.zero_shot_accuracy:.2%}")
        for score in result.scores
    ]
    out.show(TextTable(("evaluated on", "images", "with prompts", "zero-shot"), rows, ("evaluated on",)))
    out.say(", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in result.summary.items()))
