"""Plot of loss and accuracy over the epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.models.evaluation.plots import save_figure

if TYPE_CHECKING:
    from edgekit.models.training.loop import EpochReport


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
