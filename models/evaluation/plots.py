"""Plots, drawn with matplotlib without a display: confusion matrix and reliability diagram; learning curves."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import InputError
from edgekit.files import atomic_path
from edgekit.models.evaluation.evaluate import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from edgekit.models.evaluation.evaluate import Evaluation
    from edgekit.models.training.loop import EpochReport

_SUFFIXES = (".png", ".svg", ".pdf")
_DPI = 120
_PALETTE = 256
# Longest lines of text: longer names would leave no room for the axes.
_NAME_CHARS = 16
_TITLE_CHARS = 50
# With more classes, the image would become too large for PIL, and its texts too many to read.
_MOST_NAMED = 40
_UNNAMED_SIDE_IN = 15.0


def check_plot_path(path: Path) -> None:
    """Check that the suffix of a plot file is supported.

    Raises:
        InputError: The file name ends in none of .png, .svg, .pdf.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(f"plot '{path}' must end in {', '.join(_SUFFIXES)}")


def save_evaluation(path: Path, evaluation: Evaluation, title: str) -> None:
    """Plot the confusion matrix (each cell: share of the true class, and number of images) and a reliability diagram.

    With more than 40 classes, the matrix has colours and class numbers only. `check_plot_path` checks the suffix of
    `path`.

    Raises:
        StorageError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    is_named = len(evaluation.labels) <= _MOST_NAMED
    side = max(2.0 + 0.7 * len(evaluation.labels), 5.0) if is_named else _UNNAMED_SIDE_IN
    figure = Figure(figsize=(side, side + 5.0), layout="constrained")
    wrapped = textwrap.fill(title, _TITLE_CHARS)
    # Dollar signs in file names do not enclose formulas.
    figure.suptitle(f"{wrapped}\n{evaluation.accuracy:.2%} of {evaluation.total} images", parse_math=False)
    # Below each other, so that the text is legible at the width of a phone.
    matrix, diagram = figure.subplots(2, 1, height_ratios=(side, 5.0))
    _draw_confusion(matrix, evaluation, is_named)
    _draw_reliability(diagram, evaluation.calibration)
    save_figure(figure, path)


def save_learning_curves(path: Path, history: Sequence[EpochReport], saved: EpochReport) -> None:
    """Plot accuracy and loss per epoch, with the epoch marked whose weights are saved.

    The two stand below each other, so that the text is legible at the width of a phone.

    Raises:
        StorageError: The file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [report.epoch for report in history]
    marker = "o" if len(history) < 20 else ""  # many markers would hide the line
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically; the suffix of `path` selects the format. A PNG has a palette, which makes it small.

    Raises:
        StorageError: The file cannot be written.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        with warnings.catch_warnings():
            # Of characters that the font lacks, such as Chinese ones: they are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph ")
            figure.savefig(temporary, dpi=_DPI)
        if path.suffix == ".png":
            with Image.open(temporary) as image:
                image.convert("RGB").quantize(_PALETTE, dither=Image.Dither.NONE).save(temporary, optimize=True)


def _draw_confusion(axes: Axes, evaluation: Evaluation, is_named: bool) -> None:
    """Draw the confusion matrix; without `is_named`, for many classes, cells have no text and classes no names."""
    counts = evaluation.confusion
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)  # all 0 for a class without images
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set_xlabel("predicted class" if is_named else "number of the predicted class, from 0")
    axes.set_ylabel("true class" if is_named else "number of the true class, from 0")
    if not is_named:
        return
    positions = range(len(evaluation.labels))
    names = [textwrap.fill(label, _NAME_CHARS, max_lines=3, placeholder="…") for label in evaluation.labels]
    # Dollar signs in names do not enclose formulas.
    axes.set_xticks(positions, names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(positions, names, parse_math=False)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{share:.0%}\n{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _draw_reliability(axes: Axes, calibration: Calibration) -> None:
    """Draw accuracy against confidence, with a bar and the number of images for each bin."""
    bins = len(calibration.counts)
    filled = calibration.counts > 0
    centers, accuracy = ((np.arange(bins) + 0.5) / bins)[filled], calibration.accuracy[filled]
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", label="calibrated")
    axes.bar(centers, accuracy, width=0.92 / bins, color="tab:blue", alpha=0.75, label="accuracy of the bin")
    confidence = calibration.confidence[filled]
    axes.plot(confidence, accuracy, "ko", markersize=4, clip_on=False, label="mean confidence of the bin")
    for center, count in zip(centers, calibration.counts[filled], strict=True):
        axes.text(center, 0.01, str(count), rotation=90, ha="center", va="bottom", fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence (images in each bin)")
    axes.set_ylabel("accuracy")
    axes.set_title(f"reliability: expected calibration error {calibration.expected_error:.3f}")
    # Below the axes, because bars can reach every corner.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
