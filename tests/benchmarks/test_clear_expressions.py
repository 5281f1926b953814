"""Clear expressions are the images for which most people chose the label's expression."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.ferplus import COLUMNS


def test_images_whose_label_has_few_votes_are_left_out(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    happy, sad = EXPRESSIONS.index("happy"), EXPRESSIONS.index("sad")
    votes = [
        (happy, {"happiness": 10}),
        (happy, {"neutral": 10}),
        (happy, {"happiness": 6, "neutral": 4}),
        (happy, {"happiness": 6, "unknown": 2, "NF": 3}),
        (sad, {"sadness": 7, "fear": 3}),
        (sad, {"NF": 10}),
    ]
    csv_path = tmp_path / "votes.csv"
    with csv_path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["usage", "kaggle_path", *COLUMNS])
        for index, (_, counts) in enumerate(votes):
            writer.writerow(["Test", f"test/x/{index}.jpg", *(counts.get(name, 0) for name in COLUMNS)])
    images = np.arange(len(votes), dtype=np.uint8)[:, None, None, None]
    names = np.array([f"test/x/{index}.jpg" for index in range(len(votes))])
    part = ImageSet(images, np.array([label for label, _ in votes], np.int64), names=names)
    dataset = DataSet("fer2013", EXPRESSIONS, {"Test": part})
    clear = load("clear_expressions").clear_part(dataset, csv_path, "Test", 0.6)
    assert clear.split("Test").images.ravel().tolist() == [0, 2, 4]
