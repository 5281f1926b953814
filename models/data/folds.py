"""Folds of images for cross-validation.

An image's fold follows from its pixels, or from its person or track where these are known, and not from the number or
order of the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.models.data import ImageSet


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
