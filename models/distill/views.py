"""Fixed views of an image: the crops that a teacher classifies for the cached targets."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from edgekit.preprocess import ImageU8, center_crop, ten_crops

Views = Literal["center", "center-flip", "ten-crop"]
VIEWS: tuple[Views, ...] = get_args(Views)
_COUNTS: dict[Views, int] = {"center": 1, "center-flip": 2, "ten-crop": 10}

# With whole images as views, five crops would be identical.
_TEN_CROP_SHARE = 11 / 12


def view_count(views: Views) -> int:
    """Return the number of views per image."""
    return _COUNTS[views]


def cut_views(images: ImageU8, views: Views, share_hw: tuple[float, float]) -> ImageU8:
    """Return the views of each image.

    Args:
        images: uint8 (N, H, W, C).
        views: "center": the centre crop; "center-flip": the centre crop and its mirror image; "ten-crop": centre, four
            corners and their mirror images.
        share_hw: Height and width of a view as fractions of the image's; at most 11/12 for ten crops.

    Returns:
        uint8 (N, views, h, w, C).
    """
    if views == "ten-crop":
        share_hw = (min(share_hw[0], _TEN_CROP_SHARE), min(share_hw[1], _TEN_CROP_SHARE))
    height, width = (max(1, round(side * share)) for side, share in zip(images.shape[1:3], share_hw, strict=True))
    if views == "ten-crop":
        return ten_crops(images, (height, width))
    center = center_crop(images, (height, width))
    return np.stack([center] if views == "center" else [center, center[:, :, ::-1]], axis=1)
