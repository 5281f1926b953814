"""The display of a training while it runs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import LINE_EVERY_S, Output, by_stage, echo, lenient, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgekit.models.training.loop import EpochReport, StepReport


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
