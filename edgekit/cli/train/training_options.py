"""What the commands that train share: their options, reading the data, and showing a training while it runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import MAX_BATCH, PATH, SEED, NumberRange, contempt_option, refuse_unused, threads_option
from edgekit.cli.output import Output
from edgekit.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgekit.contract import Contract
    from edgekit.models.data import DataSet, ImageSet
    from edgekit.models.training.init_weights import InitialWeights
    from edgekit.models.training.loop import EpochReport, StepReport
    from edgekit.models.training.recipes import Recipe
    from edgekit.models.training.task import TrainingJob


@dataclass(frozen=True)
class TrainingOptions:
    """The options' values."""

    data: Path
    output: Path
    recipe_name: str
    epochs: int | None
    batch_size: int | None
    max_lr: float | None
    init: str | None
    seed: int
    precision: Any
    accelerator: Any
    threads: int | None
    train_split: str | None
    val_split: str | None
    contempt: str
    ferplus: Path | None
    ferplus_labels: Any
    resume: bool

    def recipe(self) -> Recipe:
        """Return the named recipe with epochs, batch size and learning rate as asked for.

        Raises:
            InputError: No such recipe.
        """
        from edgekit.models.training.recipes import get_recipe

        recipe = get_recipe(self.recipe_name)
        return dataclasses.replace(
            recipe,
            epochs=self.epochs or recipe.epochs,
            batch_size=self.batch_size or recipe.batch_size,
            max_lr=self.max_lr or recipe.max_lr,
        )

    def initial(self, contract: Contract, out: Output) -> InitialWeights | None:
        """Return the weights to start from, None for random ones.

        Raises:
            InputError: They are not those of the net to be.
        """
        from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
        from edgekit.models.training.init_weights import read_initial

        return (
            read_initial(resolve_model(self.init, (CHECKPOINT_SUFFIX,)), contract, out.say)
            if self.init is not None
            else None
        )


@dataclass(frozen=True)
class TrainingData:
    """A data set and the two parts of it that a training sees; the names say what they are.

    `training_name` is None where the data set holds no more than what was chosen of a larger one.
    """

    dataset: DataSet
    training: ImageSet
    validation: ImageSet
    validation_name: str
    training_name: str | None = None


def training_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options and hand them over as one `options: TrainingOptions`."""

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        values = {field.name: arguments.pop(field.name) for field in dataclasses.fields(TrainingOptions)}
        function(options=TrainingOptions(**values), **arguments)

    for decorator in reversed(_OPTIONS):
        wrapper = decorator(wrapper)
    return wrapper


def read_data(out: Output, options: TrainingOptions, merges: Sequence[str] = ()) -> TrainingData:
    """Read the data set, with FER+ votes and merged classes where asked for, and settle torch's threads.

    Raises:
        InputError: The data, the votes, a merge or a split cannot be used.
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.models.data import train_and_validation, training_split
    from edgekit.models.data.ferplus import with_ferplus
    from edgekit.models.data.merging import merge_classes, parse_merges, say_left_out
    from edgekit.models.data.readers import load_dataset
    from edgekit.models.torch_threads import set_torch_threads

    if options.ferplus is None:
        refuse_unused(click.get_current_context(), ("ferplus_labels",), "goes with --ferplus")
    if options.threads:
        set_torch_threads(options.threads)
    with progress_bar(out) as progress:
        dataset = load_dataset(
            options.data, progress=counted(progress, "reading images"), contempt=options.contempt, say=out.say
        )
    if options.ferplus:
        dataset = with_ferplus(dataset, options.ferplus, options.ferplus_labels, options.train_split, out.say)
    if merges:
        parsed = parse_merges(merges, dataset.classes)
        say_left_out(parsed, dataset.classes, out.say)
        dataset = merge_classes(dataset, parsed)
    if len(dataset.classes) < 2:
        raise InputError(f"data '{options.data}' has one class, '{dataset.classes[0]}': telling apart takes two")
    parts = train_and_validation(dataset, options.train_split, options.val_split, options.seed)
    return TrainingData(dataset, *parts, training_split(dataset, options.train_split))


def provenance(options: TrainingOptions, data: TrainingData) -> dict[str, Any]:
    """Return what a checkpoint records of data, recipe and versions."""
    from edgekit.files import sha256_of
    from edgekit.models.checkpoints.provenance import training_provenance

    votes = {"ferplus": options.ferplus_labels, "ferplus_sha256": sha256_of(options.ferplus)} if options.ferplus else {}
    return {
        **training_provenance(data.dataset, options.recipe_name, data.validation_name),
        "training_split": data.training_name,
        **votes,
    }


def run_training(out: Output, options: TrainingOptions, data: TrainingData, job: TrainingJob) -> Mapping[str, Any]:
    """Train, show it, and return the command's JSON document."""
    from edgekit.cli.progress import progress_bar
    from edgekit.models.training.loop import BEST_NAME, STATE_NAME, train

    recipe = job.recipe
    purpose = "choose by" if recipe.keep == "best" else "validate with"
    out.say(f"{len(data.training)} images to train on, {len(data.validation)} to {purpose} ({data.validation_name})")
    out.say(
        f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)} in batches of {recipe.batch_size}; a line after each epoch"
    )
    state = options.output / STATE_NAME
    if options.resume and not state.exists():
        out.say(f"--resume: '{options.output}' holds no training yet, this one begins")
    with progress_bar(out) as progress:
        view = _View(out, progress, recipe.epochs)
        try:
            history = train(job, options.output, options.resume, view.on_step, view.on_epoch)
        except KeyboardInterrupt:
            if state.exists():
                out.warn("finished epochs are kept: the same command with --resume goes on after them")
            else:
                out.warn("no epoch was finished: nothing is kept")
            raise
    kept = max(history, key=lambda report: report.validation_accuracy) if recipe.keep == "best" else history[-1]
    path = options.output / BEST_NAME
    out.say(f"{recipe.keep} epoch {kept.epoch}: {kept.validation_accuracy:.2%} on {data.validation_name}: {path}")
    return {
        "checkpoint": str(path),
        "best": dataclasses.asdict(kept),
        "validation": data.validation_name,
        "epochs": [dataclasses.asdict(report) for report in history],
    }


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


_OPTIONS = (
    click.option("--data", type=PATH, required=True, help="Folders, .tar.gz, fer2013.csv or .h5."),
    click.option("-o", "--output", type=PATH, required=True, help="Folder for the results."),
    click.option(
        "--recipe",
        "recipe_name",
        default="fer2013",
        show_default=True,
        help="fer2013, its halves fer2013-start and fer2013-finish (with --init), or paper; prompts and the small CLIP "
        "take their own: hicropl, hicropl-short, clip-mini.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's number."),
    click.option(
        "--batch-size", type=click.IntRange(2, MAX_BATCH), help="Images a step over all processes, not the recipe's."
    ),
    click.option(
        "--max-lr",
        type=NumberRange(0, 100, min_open=True),
        help="Highest learning rate, instead of the recipe's.",
    ),
    click.option(
        "--init",
        metavar="MODEL",
        help="Start from a checkpoint of the same net, not at random; without its last layer where the labels or the "
        "embedding space are others.",
    ),
    click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="Seed of the initial weights, batches and augmentation.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="fp16 needs a GPU.",
    ),
    click.option(
        "--accelerator",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="auto: a GPU if there is one.",
    ),
    threads_option,
    click.option("--train-split", help="Split to train on; default: Training or train."),
    click.option("--val-split", help="Split to pick the best epoch on; default: PublicTest, val, or 10 % held back."),
    contempt_option,
    click.option(
        "--ferplus",
        type=PATH,
        metavar="CSV",
        help="FER+ votes for FER-2013; see --ferplus-labels.",
    ),
    click.option(
        "--ferplus-labels",
        type=click.Choice(["posterior", "soft", "majority"]),
        default="soft",
        show_default=True,
        help="soft, majority: FER+'s labels; posterior: the data's, trained towards what the votes say of them.",
    ),
    click.option("--resume", is_flag=True, help="Go on where the training in the output folder ended."),
)
