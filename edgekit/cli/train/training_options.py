"""Options of the commands that train, and the display of a training while it runs."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import section
from edgekit.cli.options import MAX_BATCH, PATH, SEED, NumberRange, combined, refuse_unused, threads_option
from edgekit.cli.output import Output, echo, lenient
from edgekit.cli.progress import LINE_EVERY_S, by_stage, progress_bar
from edgekit.models.training.options import (
    MAX_LR,
    MAX_MIXUP_ALPHA,
    MAX_PRIOR_STRENGTH,
    MAX_SAM_RADIUS,
    MIN_MIXUP_ALPHA,
    TrainingOptions,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgekit.models.training.loop import EpochReport, StepReport

calibrate_option = click.option(
    "--calibrate/--no-calibrate",
    default=True,
    show_default=True,
    help="Fit a temperature on the validation images, and include it in the weights of the last layer.",
)


class TrainingView:
    """Progress of a training: a bar for reading the data, a bar over all epochs, and one line per finished epoch.

    Without a terminal, one line per minute on stderr takes the place of the bar.
    """

    def __init__(self, out: Output, bars: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._printed: float | None = None
        self._start = (0.0, 0)
        self._out = out
        self._bars = bars
        self._epochs = 0
        self._task = bars.add_task("training", total=None, visible=False)

    @property
    def callbacks(self) -> dict[str, Any]:
        """The arguments of a training that show its progress."""
        return {
            "notify": self._out.say,
            "progress": by_stage(self._bars),
            "on_step": self.on_step,
            "on_epoch": self.on_epoch,
        }

    def on_step(self, report: StepReport) -> None:
        """Advance the bar by one step; without a terminal, print a line once a minute."""
        self._epochs = report.epochs
        if not self._bars.console.is_terminal:
            self._print_line(report)
        self._bars.update(
            self._task,
            visible=True,
            total=report.epochs * report.steps,
            completed=report.epoch * report.steps + report.step,
            description=f"epoch {report.epoch + 1}/{report.epochs}  loss {report.loss:.3f}  acc {report.accuracy:.1%}  "
            f"{report.images_per_second:.0f} images/s",
        )

    def _print_line(self, report: StepReport) -> None:
        now = self._clock()
        done = report.epoch * report.steps + report.step
        if self._printed is None:
            self._printed, self._start = now, (now, done)
        elif now - self._printed >= LINE_EVERY_S and not self._out.quiet:
            self._printed = now
            started, steps_before = self._start
            left_s = (now - started) / (done - steps_before) * (report.epochs * report.steps - done)
            echo(
                f"epoch {report.epoch + 1}/{report.epochs}, step {report.step}/{report.steps}: loss {report.loss:.3f}, "
                f"accuracy {report.accuracy:.1%}, {report.images_per_second:.0f} images/s, {left_s / 60:.0f} min left",
                err=True,
            )

    def on_epoch(self, report: EpochReport) -> None:
        """Print the result of an epoch."""
        if self._out.quiet:
            return
        with lenient(err=True):
            self._bars.console.print(
                f"epoch {report.epoch}/{self._epochs}: loss {report.loss:.4f}, accuracy {report.accuracy:.2%}, "
                f"validation {report.validation_accuracy:.2%}, {report.seconds:.1f} s, "
                f"{report.images_per_second:.0f} images/s",
                highlight=False,
                soft_wrap=True,
            )


@contextmanager
def training_view(out: Output, output: Path) -> Iterator[TrainingView]:
    """Yield the callbacks that display a training; after Ctrl-C, warn which epochs are kept in folder `output`.

    Of several processes (torchrun), the first one prints.
    """
    out = dataclasses.replace(out, quiet=out.quiet or os.environ.get("RANK", "0") != "0")
    with progress_bar(out) as bars:
        view = TrainingView(out, bars)
        try:
            yield view
        except KeyboardInterrupt:
            from edgekit.models.training.loop import STATE_NAME

            if (output / STATE_NAME).exists():
                out.warn("finished epochs are kept: run the same command with --resume to continue")
            else:
                out.warn("no epoch was finished: no weights are kept")
            raise


# The options for data and output; this decorator stands above `training_options`, which passes the values.
data_options = combined(
    section(
        "Data",
        click.option("--data", type=PATH, required=True, help="Data set: class folders, .tar.gz, fer2013.csv or .h5."),
        click.option("--train-split", help="Split for the training. Default: Training or train."),
        click.option(
            "--val-split",
            help="Split on which the best epoch is chosen. Default: PublicTest or val; without them, a part of the "
            "training images.",
        ),
        click.option(
            "--fit",
            type=click.Choice(["auto", "square", "pad", "stretch"]),
            default="auto",
            show_default=True,
            help="How images become square, in training and on a device: the central square is cut out, or the "
            "image is padded or stretched. auto: square for faces, for whole images the best on held-back pictures; "
            "with 'distill' the teacher's.",
        ),
        click.option("--ferplus", type=PATH, metavar="CSV", help="FER+ votes for FER-2013; see --ferplus-labels."),
        click.option(
            "--ferplus-labels",
            type=click.Choice(["posterior", "soft", "majority", "mixed"]),
            default="soft",
            show_default=True,
            help="soft and majority take the labels from the votes. posterior and mixed keep the data's labels. The "
            "training target of posterior is P(label | votes), that of mixed is a mixture of label and votes.",
        ),
        click.option(
            "--label-weight",
            type=NumberRange(0, 1),
            help="With --ferplus-labels mixed: weight of the data's labels. The weight of the votes is 1 minus this "
            "weight. Default: 0.5.",
        ),
    ),
    section(
        "Class shares",
        click.option(
            "--prior-strength",
            type=NumberRange(0, MAX_PRIOR_STRENGTH),
            default=0.0,
            show_default=True,
            metavar="T",
            help="After the training, subtract T times the logarithm of each class's share from the logits. With T "
            "= 1, rare and common classes have equal influence.",
        ),
    ),
    section(
        "Output",
        click.option("-o", "--output", type=PATH, required=True, help="Folder for the results."),
        click.option("--resume", is_flag=True, help="Continue the training in the output folder."),
    ),
)
_training_sections = combined(
    section(
        "Training",
        click.option(
            "--recipe",
            default="auto",
            show_default=True,
            help="For nets: fer2013, fer2013-start, fer2013-finish, camera, adapt (for small data sets of faces), "
            "fine-tune (for pretrained nets) or paper. fer2013-finish, camera, adapt and fine-tune need --init. For "
            "CLIPs: hicropl, hicropl-short, clip-mini, clip-mini-trunk or clip-mini-trunk-tuned. auto: fine-tune for "
            "pretrained weights, else fer2013.",
        ),
        click.option(
            "--epochs", type=click.IntRange(min=1), metavar="N", help="Number of epochs; default: the recipe's."
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(2, MAX_BATCH),
            metavar="N",
            help="Images per step, summed over all processes; default: the recipe's.",
        ),
        click.option(
            "--max-lr", type=NumberRange(0, MAX_LR, min_open=True), help="Highest learning rate; default: the recipe's."
        ),
        click.option(
            "--mixup-alpha",
            type=NumberRange(0, MAX_MIXUP_ALPHA),
            help="Mix each image with another image. The share of each image is drawn from Beta(ALPHA, ALPHA), "
            f"for an ALPHA of {MIN_MIXUP_ALPHA} or more; 0: images are not mixed. Default: the recipe's. 'distill' "
            "mixes images only with --on-the-fly.",
        ),
        click.option(
            "--sam-radius",
            type=NumberRange(0, MAX_SAM_RADIUS),
            metavar="R",
            help="Sharpness-aware minimisation (SAM, arXiv 2010.01412): each step follows the gradient at a distance R "
            "from the weights, such as 0.1. A training takes twice as long. 0: off. Default: the recipe's.",
        ),
        click.option(
            "--init",
            metavar="MODEL",
            help="Start from a checkpoint of the same net instead of random weights. If the labels differ, the last "
            "layer keeps the weights of the common classes. Nets of timm and torchvision also start from a file of "
            "weights, and from 'pretrained': efficientnet-lite0 from its ImageNet weights (its default), those of timm "
            "from the weights that timm downloads.",
        ),
        click.option(
            "--seed",
            type=SEED,
            metavar="N",
            default=0,
            show_default=True,
            help="Seed of the initial weights, batches and augmentation.",
        ),
    ),
    section(
        "Machine",
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
            default="auto",
            show_default=True,
            help="Number format. auto: for nets on a CPU bf16 if bf16 is faster, otherwise fp32. fp16 needs a GPU.",
        ),
        click.option(
            "--accelerator",
            type=click.Choice(["auto", "cpu", "gpu"]),
            default="auto",
            show_default=True,
            help="Processor of the training. auto: a GPU if there is one.",
        ),
        threads_option,
    ),
)


def training_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options for training and machine, and pass all values as one `options: TrainingOptions`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **arguments: Any) -> None:
        values = {field.name: arguments.pop(field.name) for field in dataclasses.fields(TrainingOptions)}
        if values["ferplus"] is None:
            refuse_unused(click.get_current_context(), ("ferplus_labels",), "has no effect without --ferplus")
        function(*args, options=TrainingOptions(**values), **arguments)

    return _training_sections(wrapper)
