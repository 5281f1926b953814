"""Identical images and the images of a person share a fold; the fold does not depend on unrelated images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.models.data import ImageSet
from edgekit.models.data.folds import fold_numbers


def _random_part(count: int) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return ImageSet(images, np.zeros(count, np.int64))


def test_folds_are_about_equal_and_identical_images_share_one() -> None:
    part = _random_part(900)
    part.images[100:200] = part.images[:100]
    numbers = fold_numbers(part, 3)
    assert (numbers[100:200] == numbers[:100]).all()
    assert all(count == pytest.approx(300, abs=60) for count in np.bincount(numbers))


def test_the_fold_of_an_image_does_not_depend_on_the_others() -> None:
    part = _random_part(60)
    some = np.random.default_rng(1).permutation(60)[:20]
    assert (fold_numbers(part.subset(some), 5) == fold_numbers(part, 5)[some]).all()


def test_a_person_is_in_one_fold_and_with_the_persons_of_identical_images() -> None:
    part = dataclasses.replace(
        _random_part(300), groups=np.array([f"person-{index // 10:02d}" for index in range(300)])
    )
    numbers = fold_numbers(part, 3).reshape(30, 10)
    assert (numbers == numbers[:, :1]).all()
    assert set(numbers[:, 0]) == {0, 1, 2}
    for person in range(1, 30):  # a chain of persons: each shares an image with the one before
        part.images[person * 10] = part.images[person * 10 - 1]
    assert len(set(fold_numbers(part, 3).tolist())) == 1
