"""Images in a file on the disk instead of in memory: a memory-mapped array of decoded pixels."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import StorageError
from edgekit.preprocess import ImageU8

# Where decoded images are kept; "auto" is the disk for those that need more than a quarter of the available memory.
ImageCache = Literal["auto", "memory", "disk"]
_MEMORY_SHARE = 0.25
_MEMINFO = Path("/proc/meminfo")
_COPY_ROWS = 256


def fits_in_memory(size_bytes: int) -> bool:
    """Return whether images of this size need at most a quarter of the available memory."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return True
    return size_bytes <= _MEMORY_SHARE * available


def disk_array(folder: Path, shape: tuple[int, ...]) -> ImageU8:
    """Return a uint8 array of zeros in a file in `folder`, which the system removes with the array.

    Raises:
        StorageError: The disk has no room for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".images-") as file:
            os.posix_fallocate(file.fileno(), 0, max(int(np.prod(shape)), 1))  # a full disk would end the process later
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise StorageError(f"'{folder}': no room for {np.prod(shape) >> 20} MiB of images: {error.strerror}") from error


def is_on_disk(images: ImageU8) -> bool:
    """Return whether an array is in a file."""
    return isinstance(images, np.memmap)


def rows(images: ImageU8, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> ImageU8:
    """Return the images that a mask or an index array selects; of images on disk, a copy in another file there."""
    if not isinstance(images, np.memmap):
        return images[chosen]
    indices = np.arange(len(images))[chosen]
    result = disk_array(Path(str(images.filename)).parent, (len(indices), *images.shape[1:]))
    for start in range(0, len(indices), _COPY_ROWS):
        result[start : start + _COPY_ROWS] = images[indices[start : start + _COPY_ROWS]]
    return result
