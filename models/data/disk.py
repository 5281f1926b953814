"""Images in a file on the disk instead of in memory: a memory-mapped array of decoded pixels."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StorageError
from edgekit.models.callbacks import Notify
from edgekit.preprocess import ImageU8

_MEMORY_SHARE = 0.25
_MEMINFO = Path("/proc/meminfo")
_COPY_ROWS = 256


def folder_on_disk(size_bytes: int, folder: Path, notify: Notify) -> Path | None:
    """Return `folder` if images of this size do not fit in memory, and call `notify`; None: they fit."""
    if fits_in_memory(size_bytes):
        return None
    notify(f"{size_bytes >> 20} MiB of decoded images are kept on disk, in '{folder}', and not in memory")
    return folder


def fits_in_memory(size_bytes: int) -> bool:
    """Return whether images of this size need at most a quarter of the available memory."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024  # the file has KiB
    except (OSError, KeyError, ValueError):
        return True  # not on Linux: unknown
    return size_bytes <= _MEMORY_SHARE * available


def disk_array(folder: Path, shape: tuple[int, ...]) -> ImageU8:
    """Return a uint8 array of zeros in a file in `folder`, which the system removes with the array.

    Raises:
        StorageError: The disk has no room for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The name is deleted at the end of `with`; the content exists as long as the array maps it.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".images-") as file:
            # Reserve the space, because writing to a map of a full disk would end the process. At least 1 byte: 0 is
            # not allowed.
            os.posix_fallocate(file.fileno(), 0, max(int(np.prod(shape)), 1))
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise StorageError(f"'{folder}': no room for {np.prod(shape) >> 20} MiB of images: {error.strerror}") from error


def new_array(folder: Path | None, shape: tuple[int, ...]) -> ImageU8:
    """Return a uint8 array in memory, or in a file in `folder`; see `disk_array`.

    Raises:
        StorageError: The disk has no room for it.
    """
    return np.empty(shape, np.uint8) if folder is None else disk_array(folder, shape)


def folder_of(*arrays: ImageU8) -> Path | None:
    """Return the folder of the first array that is in a file; None if all are in memory."""
    return next((Path(str(each.filename)).parent for each in arrays if isinstance(each, np.memmap)), None)


def is_on_disk(images: ImageU8) -> bool:
    """Return whether an array is in a file."""
    return isinstance(images, np.memmap)


def selected_images(images: ImageU8, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> ImageU8:
    """Return the images that a mask or an index array selects; of images on disk, a copy in another file there."""
    folder = folder_of(images)
    if folder is None:
        return images[chosen]
    indices = np.arange(len(images))[chosen]
    result = disk_array(folder, (len(indices), *images.shape[1:]))
    for start in range(0, len(indices), _COPY_ROWS):  # in parts, because all images may not fit in memory
        result[start : start + _COPY_ROWS] = images[indices[start : start + _COPY_ROWS]]
    return result
