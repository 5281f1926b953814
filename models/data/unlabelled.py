"""Pictures whose classes nobody knows, beside those of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.data import ImageSet
from edgekit.models.data.files import open_files
from edgekit.models.data.pixels import to_size
from edgekit.models.data.readers import is_of_files
from edgekit.preprocess import ImageU8, to_gray

# The label of an image without one.
UNKNOWN = -1


def load_unlabelled(
    path: Path, size_px: int, gray: bool, progress: Callable[[int, int | None], None] | None = None
) -> ImageU8:
    """Return all pictures below a folder or in a .tar, whatever their folders are called.

    Args:
        path: The folder or archive.
        size_px: Height and width they are resized to.
        gray: Whether they are wanted with one channel, else three (R, G, B).
        progress: Called with (pictures read, pictures in all).

    Returns:
        uint8 (N, size_px, size_px, 1 or 3), N at least 1.

    Raises:
        InputError: There is no picture, or one is damaged.
    """
    if not is_of_files(path):
        raise InputError(f"unlabelled data '{path}' is no folder and no .tar of pictures")
    images = []
    with open_files(path) as files:
        for number, name in enumerate(files.images, start=1):
            image = to_size(decode_image(files.read(name), f"{path}/{name}"), size_px)
            images.append(_with_channels(image, 1 if gray else 3))
            if progress:
                progress(number, len(files.images))
    if not images:
        raise InputError(f"unlabelled data '{path}' holds no picture")
    return np.stack(images)


def with_unlabelled(part: ImageSet, images: ImageU8) -> ImageSet:
    """Return a split with images behind it that have no label (`UNKNOWN`) and no target (a row of zeros)."""
    targets = part.targets
    if targets is not None:
        targets = np.concatenate([targets, np.zeros((len(images), targets.shape[1]), np.float32)])
    labels = np.full(len(images), UNKNOWN, np.int64)
    return ImageSet(np.concatenate([part.images, images]), np.concatenate([part.labels, labels]), targets)


def _with_channels(image: ImageU8, channels: int) -> ImageU8:
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return to_gray(np.ascontiguousarray(image[..., ::-1]))[..., np.newaxis]
    return np.repeat(image, 3, axis=-1)
