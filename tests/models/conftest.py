"""Small synthetic data sets: each class is a bright bar at its own height, plus noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from tests.graph_cache import graph_cache as graph_cache
from tests.images import write_image


def make_split(count: int, classes: int, seed: int) -> ImageSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = generator.integers(0, 60, (count, 48, 48, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[6 + 5 * label : 10 + 5 * label] += 150
    return ImageSet(images, labels)


@pytest.fixture(scope="session")
def bars() -> DataSet:
    splits = {"Training": make_split(56, 7, 1), "PublicTest": make_split(21, 7, 2), "PrivateTest": make_split(21, 7, 3)}
    return DataSet("fer2013", EXPRESSIONS, splits)


@pytest.fixture
def bars_folder(bars: DataSet, tmp_path: Path) -> Path:
    """Return a folder with the images of `bars` as <split>/<class>/*.png."""
    folder = tmp_path / "bars"
    for split, part in bars.splits.items():
        for index, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            file = folder / split / EXPRESSIONS[label] / f"{index:03d}.png"
            write_image(file, image)
    return folder
