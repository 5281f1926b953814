"""The display of a training while it runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, by_stage, lenient, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgekit.models.training.loop import EpochReport, StepReport


class TrainingView:
    """Progress of a training: a bar for reading the data, a bar over all epochs, and one line per finished epoch.

    Without a terminal, one line per minute on stderr takes the place of the bar.
    """

    def __init__(self, out: Output, bars: Progress) -> None:
        self._out = out
        self._bars = bars
        self._by_stage = by_stage(bars)
        self._epochs = 0
        self._task = bars.add_task("training", total=None, visible=False)

    @property
    def callbacks(self) -> dict[str, Any]:
        """The arguments of a training that show its progress."""
        return {
            "notify": self._out.say,
            "progress": self._by_stage,
            "on_step": self.on_step,
            "on_epoch": self.on_epoch,
        }

    def on_step(self, report: StepReport) -> None:
        """Move the bar to the step of a report; without a terminal, print a line once a minute."""
        self._epochs = report.epochs  # for `on_epoch`, whose report does not have it
        if not self._bars.console.is_terminal:
            # The epochs of step reports are counted from 0.
            self._by_stage(f"epoch {report.epoch + 1}/{report.epochs}", report.step, report.steps)
            return
        self._bars.update(
            self._task,
            visible=True,
            total=report.epochs * report.steps,
            completed=report.epoch * report.steps + report.step,
            description=f"epoch {report.epoch + 1}/{report.epochs}  loss {report.loss:.3f}  acc {report.accuracy:.1%}  "
            f"{report.images_per_second:.0f} images/s",
        )

    def on_epoch(self, report: EpochReport) -> None:
        """Print the result of an epoch."""
        if self._out.quiet:
            return
        with lenient(err=True):  # an error of stderr, such as a full disk of its log, does not end the training
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
    # torchrun sets RANK, the number of the process.
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
