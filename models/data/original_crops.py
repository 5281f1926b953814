"""Random resized crops of images in their files: cut from the whole picture, as torchvision's RandomResizedCrop does.

An image in memory is the central square of its file, resized; a crop of the file has parts outside that square, and is
resized once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgekit.models.data.image_files import THREADS, ImageFiles
from edgekit.models.data.resized_crop import ResizedCrop, crop_parts
from edgekit.preprocess import ImageU8, to_gray

# What random crops are cut from: the central square in memory, or the picture in its file.
CropFrom = Literal["square", "original"]
_BATCHES_AHEAD = 2


class OriginalCrops:
    """Cuts random crops out of image files; threads decode the files of coming batches."""

    def __init__(self, files: ImageFiles, crop: ResizedCrop, size_px: int, gray: bool) -> None:
        """Cut crops of `size_px` pixels; with `gray` they have one channel, else three."""
        self._files = files
        self._crop = crop
        self._size_px = size_px
        self._gray = gray
        self._pool = ThreadPoolExecutor(THREADS)
        self._coming: Iterator[Sequence[int]] = iter(())
        self._decoding: deque[list[Future[ImageU8]]] = deque()

    def prefetch(self, batches: Sequence[Tensor]) -> None:
        """Decode ahead the files of an epoch's batches of indices (n,), which `crops` is called for in this order."""
        for futures in self._decoding:
            for future in futures:
                future.cancel()
        self._decoding.clear()
        self._coming = iter([batch.tolist() for batch in batches])
        for _ in range(_BATCHES_AHEAD):
            self._decode_next()

    def crops(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return crops float32 (N, 1 or 3, size_px, size_px) in 0..1, on the CPU.

        Args:
            indices: Indices of the images (N,).
            numbers: Random numbers (N, 5) from `draw_crops`.

        Raises:
            InputError: A file cannot be read or decoded.
        """
        if self._decoding:
            futures = self._decoding.popleft()
            self._decode_next()
        else:
            futures = self._decode(indices.tolist())
        cut = self._pool.map(self._cut, [future.result() for future in futures], numbers.cpu())
        return torch.from_numpy(np.stack(list(cut))).permute(0, 3, 1, 2).float().div_(255)

    def _decode_next(self) -> None:
        if (batch := next(self._coming, None)) is not None:
            self._decoding.append(self._decode(batch))

    def _decode(self, indices: Sequence[int]) -> list[Future[ImageU8]]:
        return [self._pool.submit(self._pixels, index) for index in indices]

    def _pixels(self, index: int) -> ImageU8:
        """Return an image as gray (H, W) or RGB (H, W, 3)."""
        image = self._files.stored(index)
        if self._gray:
            return to_gray(image)
        return np.ascontiguousarray(
            np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image[..., ::-1]
        )

    def _cut(self, image: ImageU8, numbers: Tensor) -> ImageU8:
        """Return one crop, uint8 (size_px, size_px, 1 or 3)."""
        from PIL import Image

        height, width = image.shape[:2]
        part_w, part_h, across, down, mirror = (
            float(each) for each in crop_parts(numbers[None], self._crop, height, width)
        )
        box_w, box_h = part_w * width, part_h * height
        left, top = across * (width - box_w), down * (height - box_h)
        box = (left, top, min(left + box_w, width), min(top + box_h, height))
        size_wh = (self._size_px, self._size_px)
        crop = np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC, box), np.uint8)
        crop = crop[:, ::-1] if mirror < 0.5 else crop
        return crop.reshape(*size_wh, -1)
