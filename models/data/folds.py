"""Folds of a training split, for teachers that classify only images that they were not trained on.

An image's fold follows from its pixels, or from its person or track where these are known, and not from the number or
order of the images. So a training on a part of the images, such as those with FER+ votes, has the same folds, unless
groups share an image: they are in one fold, but may be in two folds if the part lacks this image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import CropSpec
from edgekit.errors import InputError
from edgekit.models.data import ImageSet

MAX_FOLDS = 100


@dataclass(frozen=True)
class Fold:
    """The fold of number `fold`, from 0, of `folds`: the images that a training leaves out."""

    folds: int
    fold: int

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= MAX_FOLDS:
            raise InputError(f"folds is {self.folds}: expected 2 to {MAX_FOLDS}")
        if not 0 <= self.fold < self.folds:
            raise InputError(f"fold is {self.fold}: expected 0 to {self.folds - 1}")


def read_fold(record: Mapping[str, Any]) -> Fold:
    """Return the fold in a checkpoint's record.

    Raises:
        InputError: The record is invalid.
    """
    values = [record.get(name) for name in ("folds", "fold")]
    if not all(isinstance(value, int) for value in values):
        raise InputError(f"{dict(record)} is not the record of a fold: train the teacher again with --folds and --fold")
    return Fold(*values)  # type: ignore[arg-type]


def pixel_facts(crop: CropSpec) -> dict[str, Any]:
    """Return the settings that determine the pixels of the images, and thereby the folds."""
    return {"image_size": crop.resize_hw[0], "fit": crop.fit, "grayscale": crop.grayscale}


def fold_numbers(part: ImageSet, folds: int) -> NDArray[np.int64]:
    """Return the fold of each image, int64 (N,), 0 to `folds` - 1.

    Pixel-identical images and the images of a group are in one fold; groups that share an image are one group.
    """
    pixels = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in part.images]
    keys = pixels if part.groups is None else [name.encode() for name in _joined(part.groups.tolist(), pixels)]
    digests = (hashlib.sha256(key).digest() for key in keys)
    return np.array([int.from_bytes(digest[:8]) % folds for digest in digests], np.int64)


def _joined(groups: Sequence[str], pixels: Sequence[bytes]) -> list[str]:
    """Return the group of each image, where groups that share an image have the alphabetically first one's name."""
    parent = {name: name for name in groups}

    def first_of(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    owners: dict[bytes, str] = {}
    for name, image in zip(groups, pixels, strict=True):
        first, second = sorted((first_of(name), first_of(owners.setdefault(image, name))))
        parent[second] = first
    return [first_of(name) for name in groups]
