"""Images of a split that stay in their files and are decoded when they are needed, by several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgekit.device.imaging import decode_image
from edgekit.models.callbacks import Progress
from edgekit.models.data import ImageSet
from edgekit.models.data.pixels import single_channel_if_gray, stack, to_clip_square
from edgekit.preprocess import ImageU8

# Decoding releases Python's global lock.
THREADS = min(8, os.cpu_count() or 1)
# Images of a batch from `batches`; `evaluate` classifies as many at a time.
_BATCH_IMAGES = 160
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ImageFiles:
    """One split: the image files `paths` of the data set `where`, and `labels` int64 (N,).

    `names` and `groups` are those of an `ImageSet`; `read` returns the bytes of a file.
    """

    where: str
    read: Callable[[PurePosixPath], bytes]
    paths: tuple[PurePosixPath, ...]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]
    groups: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: NDArray[np.bool_]) -> ImageFiles:
        """Return the images selected by a mask."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in np.flatnonzero(chosen)),
            labels=self.labels[chosen],
            names=self.names[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    def stored(self, index: int) -> ImageU8:
        """Return an image as stored: uint8 (H, W) or (H, W, 3) BGR.

        Raises:
            InputError: The file cannot be read or decoded.
        """
        path = self.paths[index]
        return decode_image(self.read(path), f"{self.where}/{path}")

    def square(self, index: int, size_px: int) -> ImageU8:
        """Return the central square of an image as a CLIP takes it: uint8 (size_px, size_px, 1 or 3 RGB)."""
        return single_channel_if_gray(to_clip_square(self.stored(index), size_px))


def decoded(parts: Sequence[ImageFiles], size_px: int, progress: Progress | None = None) -> list[ImageSet]:
    """Return the central squares of all images in memory, with one channel if all images are gray.

    Raises:
        InputError: A file cannot be read or decoded.
    """
    wanted = [(part, index) for part in parts for index in range(len(part))]
    squares: list[ImageU8] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for square in pool.map(lambda each: each[0].square(each[1], size_px), wanted):
            squares.append(square)
            if progress and (len(squares) % 256 == 0 or len(squares) == len(wanted)):
                progress(len(squares), len(wanted))
    gray = all(square.shape[-1] == 1 for square in squares)
    sets, start = [], 0
    for part in parts:
        sets.append(_image_set(part, range(len(part)), squares[start : start + len(part)], gray))
        start += len(part)
    return sets


def batches(images: ImageSet | ImageFiles, size_px: int) -> Iterator[ImageSet]:
    """Yield the images in order: those in memory at once, those in files in batches that are decoded ahead.

    Raises:
        InputError: A file cannot be read or decoded.
    """
    if isinstance(images, ImageSet):
        yield images
        return
    pool = ThreadPoolExecutor(THREADS)
    pending: deque[tuple[range, list[Future[ImageU8]]]] = deque()
    try:
        for start in range(0, len(images), _BATCH_IMAGES):
            indices = range(len(images))[start : start + _BATCH_IMAGES]
            pending.append((indices, [pool.submit(images.square, index, size_px) for index in indices]))
            if len(pending) > _BATCHES_AHEAD:
                yield _finished(images, *pending.popleft())
        while pending:
            yield _finished(images, *pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(images: ImageFiles, indices: range, futures: Sequence[Future[ImageU8]]) -> ImageSet:
    squares = [future.result() for future in futures]
    return _image_set(images, indices, squares, all(square.shape[-1] == 1 for square in squares))


def _image_set(files: ImageFiles, indices: range, squares: Sequence[ImageU8], gray: bool) -> ImageSet:
    part = slice(indices.start, indices.stop)
    return ImageSet(
        stack(squares, gray),
        files.labels[part],
        names=files.names[part],
        groups=None if files.groups is None else files.groups[part],
    )
