"""Metrics of a training, one record per epoch: `metrics.jsonl` and TensorBoard events; learning curves as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.files import write_atomic
from edgekit.models.evaluation.plots import save_figure

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from edgekit.models.training.loop import EpochReport

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Context manager that writes one record per epoch to `metrics.jsonl` and TensorBoard events in a folder."""

    def __init__(self, folder: Path, history: Sequence[DataclassInstance]) -> None:
        """Start with the records of the finished epochs."""
        self._path = folder / METRICS_NAME
        self._records = [asdict(record) for record in history]
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Return the log; the first new record opens the event file.

        An epoch whose training was killed between its state and its record is in the history only.
        """
        if self._records:
            self._write_lines()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the event file."""
        if self._writer:
            self._writer.close()

    def write(self, record: DataclassInstance) -> None:
        """Add the record of one epoch; the JSON lines are rewritten atomically, so none is duplicated or truncated."""
        values = asdict(record)
        self._records.append(values)
        self._write_lines()
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            # TensorBoard hides earlier events of the epochs that a resumed training repeats.
            self._writer = SummaryWriter(str(self._folder), purge_step=len(self._records))
        for name, value in values.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, values["epoch"])
        self._writer.flush()

    def _write_lines(self) -> None:
        write_atomic(self._path, "".join(f"{json.dumps(item)}\n" for item in self._records))


def save_learning_curves(path: Path, history: Sequence[EpochReport], saved: EpochReport) -> None:
    """Plot accuracy and loss per epoch, with the epoch marked whose weights are saved.

    The two stand below each other, so that the text is legible at the width of a phone.

    Raises:
        StorageError: The file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [report.epoch for report in history]
    marker = "o" if len(history) < 20 else ""
    figure = Figure(figsize=(5.5, 7), layout="constrained")
    accuracy, loss = figure.subplots(2, 1, sharex=True)
    loss.plot(epochs, [report.loss for report in history], marker=marker, label="training (augmented)")
    loss.plot(epochs, [report.validation_loss for report in history], marker=marker, label="validation")
    loss.set_ylabel("cross-entropy (nats)")
    accuracy.plot(epochs, [report.accuracy for report in history], marker=marker, label="training (augmented)")
    accuracy.plot(epochs, [report.validation_accuracy for report in history], marker=marker, label="validation")
    accuracy.plot(saved.epoch, saved.validation_accuracy, "k*", markersize=11, label=f"saved: epoch {saved.epoch}")
    accuracy.set_title(f"saved epoch: {saved.validation_accuracy:.2%}")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    loss.set_xlabel("epoch")
    save_figure(figure, path)
