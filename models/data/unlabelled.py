"""Unlabelled images, used in distillation in addition to the labelled ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgekit.contract import Fit
from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.data import ImageSet
from edgekit.models.data.disk import folder_on_disk, joined, new_array
from edgekit.models.data.files import open_files
from edgekit.models.data.pixels import to_size
from edgekit.models.data.readers import is_of_files
from edgekit.preprocess import ImageU8, to_gray

# Label of an unlabelled image.
UNKNOWN = -1


def load_unlabelled(
    path: Path,
    size_px: int,
    gray: bool,
    progress: Progress | None = None,
    *,
    fit: Fit = "square",
    folder: Path | None = None,
    notify: Notify = ignore_message,
) -> ImageU8:
    """Return all images in a folder and its subfolders, or in a .tar archive; folder names are ignored.

    Args:
        path: The folder or archive.
        size_px: Height and width of the resized images.
        gray: Whether to return one channel, else three (RGB).
        progress: Called with (images read, images in total).
        fit: How images that are not square become square.
        folder: Folder for a file of the images, if they need more than a quarter of the free memory.
        notify: Called with a message about that file.

    Returns:
        uint8 (N, size_px, size_px, 1 or 3), N ≥ 1.

    Raises:
        InputError: There is no image, or one is damaged.
    """
    if not is_of_files(path):
        raise InputError(f"unlabelled data '{path}' is neither a folder nor a .tar archive of images")
    with open_files(path, notify) as files:
        if not files.images:
            raise InputError(f"unlabelled data '{path}' contains no image")
        shape = (len(files.images), size_px, size_px, 1 if gray else 3)
        images = new_array(folder and folder_on_disk(math.prod(shape), "auto", folder, notify), shape)
        for index, name in enumerate(files.images):
            image = to_size(decode_image(files.read(name), f"{path}/{name}"), size_px, fit)
            to_one = gray and image.shape[-1] == 3
            # One channel is repeated where the array has three.
            images[index] = to_gray(image[..., ::-1])[..., np.newaxis] if to_one else image
            if progress:
                progress(index + 1, len(files.images))
    return images


def with_unlabelled(part: ImageSet, images: ImageU8) -> ImageSet:
    """Return a split with unlabelled images appended: label `UNKNOWN`, and a row of zeros as target."""
    targets = part.targets
    if targets is not None:
        targets = np.concatenate([targets, np.zeros((len(images), targets.shape[1]), np.float32)])
    labels = np.full(len(images), UNKNOWN, np.int64)
    names = None if part.names is None else np.concatenate([part.names, np.full(len(images), "", part.names.dtype)])
    return ImageSet(joined(part.images, images), np.concatenate([part.labels, labels]), targets, names)
