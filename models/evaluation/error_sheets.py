"""Contact sheets of the errors of an evaluation: one PNG per true class, the most confident errors first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from edgekit.models.data.sheets import Mark, caption, save_sheet, sheet_path
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.preprocess import ImageU8, softmax

# Images on a sheet.
_MOST = 50
# matplotlib's colours "tab10": readable for people who see colours differently.
_COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def save_errors(folder: Path, images: ImageU8, evaluation: Evaluation) -> list[Path]:
    """Draw one contact sheet per true class that has errors, and return the paths in label order.

    A sheet shows up to 50 wrongly classified images, the most confident predictions first. The border's colour is that
    of the predicted class. Of a class without errors, the sheet of an earlier evaluation is removed.

    Args:
        folder: Folder of the sheets, which is created.
        images: uint8 (N, H, W, 1 gray or 3 RGB), the images of the evaluation.
        evaluation: The predictions for the images.

    Raises:
        StorageError: A file cannot be written.
    """
    probabilities = softmax(evaluation.logits)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    legend: list[Mark] = [
        (caption(label), _COLOURS[number % len(_COLOURS)]) for number, label in enumerate(evaluation.labels)
    ]
    paths = []
    for number, label in enumerate(evaluation.labels):
        wrong = [index for index in order if evaluation.truths[index] == number and predicted[index] != number]
        path = sheet_path(folder, number, label)
        if not wrong:
            with suppress(OSError):
                path.unlink()
            continue
        paths.append(path)
        of_class = int((evaluation.truths == number).sum())
        subtitle = f"{len(wrong):,} of {of_class:,} images wrong; border: predicted class, most confident first"
        tiles = [(images[index], legend[predicted[index]]) for index in wrong[:_MOST]]
        save_sheet(path, label, subtitle, tiles, legend)
    return paths
