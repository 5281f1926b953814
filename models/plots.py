"""Pictures of numbers, drawn with matplotlib without a display."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import atomic_path
from edgekit.models.evaluate import Evaluation

_PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Check that a picture of this name can be drawn.

    Raises:
        InputError: Its ending names no format there is.
    """
    if path.suffix not in _PICTURE_SUFFIXES:
        raise InputError(f"plot '{path}' must end in {', '.join(_PICTURE_SUFFIXES)}")


def save_confusion(path: Path, evaluation: Evaluation, title: str) -> None:
    """Draw the confusion matrix: rows are the true classes, each cell its share of the row and its count.

    Raises:
        InputError: The file's ending is none matplotlib draws here.
        StorageError: The file cannot be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    counts = evaluation.confusion
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2.0 + 0.75 * len(evaluation.labels)
    figure = Figure(figsize=(side, side * 0.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    positions = range(len(evaluation.labels))
    axes.set_xticks(positions, evaluation.labels, rotation=45, ha="right")
    axes.set_yticks(positions, evaluation.labels)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.set_title(f"{title}\n{evaluation.accuracy:.2%} of {evaluation.total} images")
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
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
