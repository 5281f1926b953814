"""Held-back pictures that are nearly equal to training pictures, as those of one recording are."""

from __future__ import annotations

import numpy as np

from edgekit.device.imaging import resize
from edgekit.models.data.originals import spread
from edgekit.preprocess import FloatArray, ImageU8

_SIDE_PX = 16
# Correlation of two small pictures. Of frames of one video all are above, of unrelated photographs none.
_NEAR = 0.95
_MOST_TRAINING, _MOST_HELD_BACK = 4000, 400


def near_copies(training: ImageU8, held_back: ImageU8) -> float:
    """Return the share, 0..1, of the held-back images (N, H, W, C) that are nearly equal to a training image."""
    known = _small(training[spread(len(training), _MOST_TRAINING)])
    asked = _small(held_back[spread(len(held_back), _MOST_HELD_BACK)])
    return float(((asked @ known.T).max(axis=1) > _NEAR).mean())


def _small(images: ImageU8) -> FloatArray:
    """Return the images as small gray ones with mean 0 and norm 1: float32 (N, pixels)."""
    gray = [np.ascontiguousarray(image.mean(axis=-1).astype(np.uint8)) for image in images]
    pixels = np.stack([resize(image, (_SIDE_PX, _SIDE_PX)) for image in gray]).reshape(len(images), -1)
    centred: FloatArray = pixels.astype(np.float32) - pixels.mean(axis=1, keepdims=True, dtype=np.float32)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return centred
