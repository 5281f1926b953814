"""`edgekit train`: a data set in, a checkpoint out."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.options import merge_option
from edgekit.cli.output import Output, common_options
from edgekit.cli.train.clip import (
    MINI,
    PROMPTS,
    ClipOptions,
    clip_options,
    refuse_others_options,
    train_mini,
    train_prompts,
)
from edgekit.cli.train.training_options import TrainingOptions, provenance, read_data, run_training, training_options


@click.command("train", short_help="Train a classifier on a data set.")
@click.option(
    "--model",
    "architecture",
    default="edgecnn",
    show_default=True,
    help="edgecnn, edgecnn-wide, edgecnn-g, edgecnn-g-learned, mini-xception, mobilenetv2, mobilenetv3-small, "
    "shufflenetv2-x0.5 or timm/NAME; hicropl or clip-mini.",
)
@training_options
@click.option(
    "--balance",
    type=click.Choice(["none", "loss", "sampler"]),
    default="none",
    show_default=True,
    help="Make rare classes count as much as common ones: by weight in the loss, or by drawing them more often.",
)
@merge_option
@clip_options
@common_options
def command(
    out: Output,
    options: TrainingOptions,
    chosen: ClipOptions,
    architecture: str,
    balance: Any,
    merges: tuple[str, ...],
) -> None:
    """Train a classifier and keep the epoch that is best on the validation split.

    The output folder receives best.safetensors, last.pt (for --resume), metrics.jsonl, TensorBoard events and
    curves.png (loss and accuracy over the epochs). Several processes or machines: start this command with torchrun.

    \b
    Examples:
      edgekit train --data fer2013.tar.gz -o runs/mine
      edgekit train --data fer2013.csv -o runs/short --epochs 2 --precision bf16
      edgekit train --data fer2013.tar.gz -o runs/mine --resume
      edgekit train --data fer2013.csv --ferplus fer2013new.csv -o runs/votes
      edgekit train --data fer2013.csv --merge good=happy,surprise --merge bad=sad,angry -o runs/moods
      tensorboard --logdir runs

    `--model hicropl` learns prompts for a CLIP (--clip) instead, keeps those of the last epoch, measures them as --task
    says and writes results.json; `--model clip-mini` pretrains a small CLIP for it. Both have their own recipes. The
    options that start with a model's name are for that model.

    \b
      edgekit train --model clip-mini --data fer2013.tar.gz -o runs/mini
      edgekit train --model hicropl --clip runs/mini/best.safetensors --data fer2013.tar.gz -o runs/prompts
      edgekit train --model hicropl --clip ViT-B-16.pt --task base-to-novel --data split_zhou_DTD.json -o runs/dtd
    """
    refuse_others_options(architecture)
    if architecture == PROMPTS:
        train_prompts(out, options, chosen)
    elif architecture == MINI:
        train_mini(out, options, chosen)
    else:
        _train_classifier(out, options, architecture, balance, merges)


def _train_classifier(
    out: Output, options: TrainingOptions, architecture: str, balance: Any, merges: tuple[str, ...]
) -> None:
    from edgekit.models.checkpoints.provenance import contract_for
    from edgekit.models.nets.registry import require_no_space
    from edgekit.models.training.classification import ClassificationTask
    from edgekit.models.training.loop import check_output
    from edgekit.models.training.task import TrainingJob

    recipe = options.recipe()
    check_output(options.output, options.resume)
    require_no_space(architecture)
    contract_for(architecture, ("any",), "any", gray=True)  # an unknown net is reported before the data is read
    data = read_data(out, options, merges)
    contract = contract_for(architecture, data.dataset.classes, data.dataset.name, data.dataset.is_gray)
    job = TrainingJob(
        task=ClassificationTask(
            contract, recipe, data.training, data.validation, balance, options.initial(contract, out)
        ),
        recipe=recipe,
        provenance={**provenance(options, data), **({"merged": list(merges)} if merges else {})},
        seed=options.seed,
        precision=options.precision,
        accelerator=options.accelerator,
    )
    out.result(run_training(out, options, data, job))
