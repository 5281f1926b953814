"""Pictures of numbers, drawn with matplotlib without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import InputError
from edgekit.files import atomic_path
from edgekit.models.evaluation.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from edgekit.models.evaluation.evaluate import Evaluation
    from edgekit.models.training.loop import EpochReport

_PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
_DPI = 120


def check_picture(path: Path) -> None:
    """Check that a picture of this name can be drawn.

    Raises:
        InputError: Its ending names no format there is.
    """
    if path.suffix not in _PICTURE_SUFFIXES:
        raise InputError(f"plot '{path}' must end in {', '.join(_PICTURE_SUFFIXES)}")


def save_evaluation(path: Path, evaluation: Evaluation, title: str) -> None:
    """Draw the confusion matrix (each cell its share of the true class and its count) and a reliability diagram.

    Raises:
        InputError: The file's ending is none matplotlib draws here.
        StorageError: The file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    side = 2.0 + 0.75 * len(evaluation.labels)
    figure = Figure(figsize=(side * 1.1 + 4.5, side * 0.95), layout="constrained")
    figure.suptitle(f"{title}: {evaluation.accuracy:.2%} of {evaluation.total} images")
    matrix, diagram = figure.subplots(1, 2, width_ratios=(side * 1.1, 4.5))
    _draw_confusion(matrix, evaluation)
    _draw_reliability(diagram, evaluation.calibration)
    _save(figure, path)


def save_learning_curves(path: Path, history: Sequence[EpochReport]) -> None:
    """Draw loss and accuracy over the epochs; the best epoch is marked.

    Raises:
        InputError: The file's ending is none matplotlib draws here.
        StorageError: The file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    best = max(history, key=lambda report: report.validation_accuracy)
    epochs = [report.epoch for report in history]
    marker = "o" if len(history) < 20 else ""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot(epochs, [report.loss for report in history], marker=marker, label="training (augmented)")
    loss.plot(epochs, [report.validation_loss for report in history], marker=marker, label="validation")
    loss.set_ylabel("cross-entropy (nats)")
    accuracy.plot(epochs, [report.accuracy for report in history], marker=marker, label="training (augmented)")
    accuracy.plot(epochs, [report.validation_accuracy for report in history], marker=marker, label="validation")
    accuracy.plot(best.epoch, best.validation_accuracy, "k*", markersize=11, label=f"best: epoch {best.epoch}")
    accuracy.set_title(f"best {best.validation_accuracy:.2%}")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    positions = range(len(evaluation.labels))
    axes.set_xticks(positions, evaluation.labels, rotation=45, ha="right")
    axes.set_yticks(positions, evaluation.labels)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    for row in positions:
        for column in positions:
            axes.text(
                column,
                row,
                f"{shares[row, column]:.0%}\n{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")


def _draw_reliability(axes: Axes, calibration: Calibration) -> None:
    bins = len(calibration.counts)
    centers = (np.arange(bins) + 0.5) / bins
    filled = calibration.counts > 0
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", label="calibrated")
    axes.bar(
        centers[filled],
        calibration.accuracy[filled],
        width=0.92 / bins,
        color="tab:blue",
        alpha=0.75,
        label="accuracy in the bin",
    )
    axes.plot(
        calibration.confidence[filled],
        calibration.accuracy[filled],
        "o",
        color="black",
        markersize=4,
        clip_on=False,
        label="at the bin's mean confidence",
    )
    for center, count in zip(centers[filled], calibration.counts[filled], strict=True):
        axes.text(center, 0.01, str(count), rotation=90, ha="center", va="bottom", fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence (images in each bin)")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"reliability: expected calibration error {calibration.expected_error:.3f}")
    # Below: bars of rare confidences can be as high in the corners as anywhere.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
