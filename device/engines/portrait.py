"""Crops of the face in the shipped portrait, on which engines are compared."""

from __future__ import annotations

from itertools import product

import numpy as np

from edgekit.contract import Contract
from edgekit.device.imaging import read_image, resize
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8, crop_face

# Face box in the shipped portrait; scales and shifts of the box are fractions of its side.
_PORTRAIT = "astronaut.png"
_FACE_XYXY = (172.0, 66.0, 276.0, 190.0)
_SCALES = (0.85, 1.0, 1.25)
_SHIFTS = (-0.12, 0.0, 0.12)


def portrait_crops(contract: Contract) -> ImageU8:
    """Return crops of the face in the shipped portrait: 27 shifted and scaled boxes, each also mirrored.

    Returns:
        uint8 (54, H, W, 1 or 3) in the contract's input size.
    """
    portrait_bgr = read_image(asset(_PORTRAIT))
    width = portrait_bgr.shape[1]
    x0, y0, x1, y1 = _FACE_XYXY
    side = max(x1 - x0, y1 - y0)
    crops = []
    for scale, shift_x, shift_y in product(_SCALES, _SHIFTS, _SHIFTS):
        centre_x, centre_y = (x0 + x1) / 2 + shift_x * side, (y0 + y1) / 2 + shift_y * side
        half = scale * side / 2
        box = (centre_x - half, centre_y - half, centre_x + half, centre_y + half)
        mirrored_box = (width - box[2], box[1], width - box[0], box[3])
        for image, xyxy in ((portrait_bgr, box), (np.ascontiguousarray(portrait_bgr[:, ::-1]), mirrored_box)):
            crops.append(crop_face(image, xyxy, contract.crop, contract.input.size_hw, resize))
    return np.stack(crops)
