"""Views of an image: the crops that a teacher classifies for the cached targets.

The outputs for "all-crops" are kept per view, so that each training crop has the outputs for exactly itself (function
matching, arXiv 2106.05237); those for the other views are averaged.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgekit.preprocess import ImageU8, center_crop, ten_crops

Views = Literal["center", "center-flip", "ten-crop", "all-crops"]
_COUNTS = {"center": 1, "center-flip": 2, "ten-crop": 10}

# The share of a training crop. With whole images as views, five crops would be identical.
_CROP_SHARE = 11 / 12


def view_count(views: Views, size_hw: tuple[int, int]) -> int:
    """Return the number of views of an image of height and width `size_hw`."""
    if views != "all-crops":
        return _COUNTS[views]
    height, width = (side - training_crop_px(side) + 1 for side in size_hw)
    return 2 * height * width


def training_crop_px(side_px: int) -> int:
    """Return the side of the crops of "all-crops" for images of `side_px` pixels."""
    return round(side_px * _CROP_SHARE)


def cut_views(images: ImageU8, views: Views, share_hw: tuple[float, float]) -> ImageU8:
    """Return the views of each image.

    Args:
        images: uint8 (N, H, W, C).
        views: "center": the centre crop; "center-flip": the centre crop and its mirror image; "ten-crop": centre, four
            corners and their mirror images; "all-crops": the crops of 11/12 of the side in the order of
            `edgekit.models.data.augment.crop_number`.
        share_hw: Height and width of a view as fractions of the image's; at most 11/12 for ten crops, and not used for
            all crops.

    Returns:
        uint8 (N, views, h, w, C).
    """
    if views == "all-crops":
        size_hw = (training_crop_px(images.shape[1]), training_crop_px(images.shape[2]))
        windows = np.lib.stride_tricks.sliding_window_view(images, size_hw, axis=(1, 2))  # (N, y, x, C, h, w)
        crops = windows.transpose(0, 1, 2, 4, 5, 3)
        return np.stack([crops, crops[..., ::-1, :]], axis=3).reshape(len(images), -1, *crops.shape[3:])
    if views == "ten-crop":
        share_hw = (min(share_hw[0], _CROP_SHARE), min(share_hw[1], _CROP_SHARE))
    height, width = (max(1, round(side * share)) for side, share in zip(images.shape[1:3], share_hw, strict=True))
    if views == "ten-crop":
        return ten_crops(images, (height, width))
    center = center_crop(images, (height, width))
    return np.stack([center] if views == "center" else [center, center[:, :, ::-1]], axis=1)
