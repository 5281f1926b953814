"""`edgekit train`: a data set in, a checkpoint out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.common import Output, common_options
from edgekit.cli.options import MAX_BATCH, SEED, threads_option

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgekit.models.training import EpochReport, StepReport


@click.command("train", short_help="Train a classifier on a data set.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folders, .tar.gz, fer2013.csv or .h5.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@click.option(
    "--model",
    "architecture",
    default="edgecnn",
    show_default=True,
    help="The net: edgecnn, edgecnn-wide, edgecnn-g, edgecnn-g-learned.",
)
@click.option("--recipe", "recipe_name", default="fer2013", show_default=True, help="fer2013 or paper.")
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's number.")
@click.option(
    "--batch-size", type=click.IntRange(2, MAX_BATCH), help="Images a step over all processes, not the recipe's."
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Seed of the initial weights, batches and augmentation.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="fp16 needs a GPU.",
)
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
@threads_option
@click.option("--train-split", help="Split to train on; default: Training or train.")
@click.option("--val-split", help="Split to pick the best epoch on; default: PublicTest, val, or 10 % held back.")
@click.option(
    "--balance",
    type=click.Choice(["none", "loss", "sampler"]),
    default="none",
    show_default=True,
    help="Make rare classes count as much as common ones: by weight in the loss, or by drawing them more often.",
)
@click.option(
    "--ferplus",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="FER+ votes for FER-2013; see --ferplus-labels.",
)
@click.option(
    "--ferplus-labels",
    type=click.Choice(["posterior", "soft", "majority"]),
    default="posterior",
    show_default=True,
    help="posterior: keep the labels, train towards what the votes say of them; soft, majority: FER+'s own labels.",
)
@click.option("--resume", is_flag=True, help="Go on where the training in the output folder ended.")
@common_options
def command(
    out: Output,
    data: Path,
    output: Path,
    architecture: str,
    recipe_name: str,
    epochs: int | None,
    batch_size: int | None,
    seed: int,
    precision: Any,
    accelerator: Any,
    threads: int | None,
    train_split: str | None,
    val_split: str | None,
    balance: Any,
    ferplus: Path | None,
    ferplus_labels: Any,
    resume: bool,
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
      tensorboard --logdir runs
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.files import sha256_of
    from edgekit.models.classification import ClassificationTask
    from edgekit.models.data import train_and_validation
    from edgekit.models.data.ferplus import with_ferplus
    from edgekit.models.data.readers import load_dataset
    from edgekit.models.engines import set_torch_threads
    from edgekit.models.provenance import contract_for, training_provenance
    from edgekit.models.recipes import get_recipe
    from edgekit.models.training import BEST_NAME, TrainingJob, train

    recipe = get_recipe(recipe_name)
    recipe = dataclasses.replace(recipe, epochs=epochs or recipe.epochs, batch_size=batch_size or recipe.batch_size)
    contract_for(architecture, ("any",), "any", gray=True)  # an unknown net is reported before the data is read
    if threads:
        set_torch_threads(threads)
    with progress_bar(out) as progress:
        dataset = load_dataset(data, progress=counted(progress, "reading images"))
    if ferplus:
        dataset = with_ferplus(dataset, ferplus, ferplus_labels, train_split, out.say)
    training, validation, validation_name = train_and_validation(dataset, train_split, val_split, seed)
    contract = contract_for(architecture, dataset.classes, dataset.name, dataset.is_gray)
    job = TrainingJob(
        task=ClassificationTask(contract, recipe, training, validation, balance),
        recipe=recipe,
        provenance={
            **training_provenance(dataset, recipe_name, validation_name),
            **({"ferplus": ferplus_labels, "ferplus_sha256": sha256_of(ferplus)} if ferplus else {}),
        },
        seed=seed,
        precision=precision,
        accelerator=accelerator,
    )
    out.say(f"{len(training)} images to train on, {len(validation)} to choose by ({validation_name})")
    out.say(f"{recipe.epochs} epochs in batches of {recipe.batch_size}; a line after each epoch")
    with progress_bar(out) as progress:
        view = _View(out, progress, recipe.epochs)
        try:
            history = train(job, output, resume, view.on_step, view.on_epoch)
        except KeyboardInterrupt:
            out.warn("finished epochs are kept: the same command with --resume goes on after them")
            raise
    best = max(history, key=lambda report: report.validation_accuracy)
    out.say(f"best epoch {best.epoch}: {best.validation_accuracy:.2%} on {validation_name}: {output / BEST_NAME}")
    out.result(
        {
            "checkpoint": str(output / BEST_NAME),
            "best": dataclasses.asdict(best),
            "validation": validation_name,
            "epochs": [dataclasses.asdict(report) for report in history],
        }
    )


class _View:
    """Shows a training: one bar over all epochs and a line for each finished one."""

    def __init__(self, out: Output, progress: Progress, epochs: int) -> None:
        self._out = out
        self._progress = progress
        self._epochs = epochs
        self._task = progress.add_task("training", total=None)

    def on_step(self, report: StepReport) -> None:
        self._progress.update(
            self._task,
            total=self._epochs * report.steps,
            completed=report.epoch * report.steps + report.step,
            description=f"epoch {report.epoch + 1}/{self._epochs}  loss {report.loss:.3f}  acc {report.accuracy:.1%}",
        )

    def on_epoch(self, report: EpochReport) -> None:
        if not self._out.quiet:
            self._progress.console.print(
                f"epoch {report.epoch}/{self._epochs}: loss {report.loss:.4f}, accuracy {report.accuracy:.2%}, "
                f"validation {report.validation_accuracy:.2%}, {report.seconds:.1f} s, "
                f"{report.images_per_second:.0f} images/s",
                highlight=False,
            )
