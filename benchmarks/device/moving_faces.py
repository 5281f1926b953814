"""A test video with known boxes: real faces that move, grow, cross, enter and leave over a real background.

Faces are cut out of pictures and pasted along paths, so box and visibility of each face are known exactly in every
frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgekit.preprocess import FloatArray, ImageU8

FRAME_WH = (640, 480)
FPS = 25.0
FRAMES = 240
# Margin of the cut-out around a face's box (hair, chin, ears), as a share of its sides.
_AROUND = 0.35
# A face counts as visible while at most this share of its box is hidden.
_MAX_HIDDEN = 0.5


@dataclass(frozen=True)
class Cutout:
    """A face cut out of a picture: uint8 (h, w, 3), opacity float32 (h, w, 1), and the face's box in the cutout."""

    image_bgr: ImageU8
    opacity: FloatArray
    xyxy: FloatArray


@dataclass(frozen=True)
class KnownFace:
    """Face number `who` of a frame: its box, and whether enough of the face is visible for a detector."""

    who: int
    xyxy: FloatArray
    visible: bool


@dataclass(frozen=True)
class _Path:
    """Path of a face over time 0 to 1: centre as fractions of the frame's size, height of the face's box in pixels."""

    centre: Callable[[float], tuple[float, float]]
    height_px: Callable[[float], float]
    first: float = 0.0
    last: float = 1.0


def _swing(progress: float, turns: float) -> float:
    return math.sin(2 * math.pi * turns * progress)


# In painting order: later faces pass in front of earlier ones.
_PATHS = (
    # Moves from side to side, and back.
    _Path(lambda t: (0.5 + 0.38 * _swing(t, 1.5), 0.3 + 0.03 * _swing(t, 4)), lambda _: 84),
    # Moves against the first one, in front of it: they cross three times.
    _Path(lambda t: (0.5 - 0.36 * _swing(t, 1.5), 0.34), lambda _: 104),
    # Approaches and recedes.
    _Path(lambda t: (0.3 + 0.05 * _swing(t, 2), 0.74), lambda t: 96 + 48 * _swing(t, 2)),
    # Enters from the right, stays, leaves at the bottom.
    _Path(
        lambda t: (1.15 - 1.1 * t if t < 0.35 else 0.765, 0.72 if t < 0.65 else 0.72 + 1.6 * (t - 0.65)),
        lambda _: 90,
        first=0.1,
        last=0.95,
    ),
)


def cut_out(picture_bgr: ImageU8, xyxy: Sequence[float] | FloatArray) -> Cutout:
    """Return the face in a box, with a margin in which the opacity falls to 0."""
    x0, y0, x1, y1 = (float(value) for value in xyxy)
    grow_x, grow_y = _AROUND * (x1 - x0), _AROUND * (y1 - y0)
    height, width = picture_bgr.shape[:2]
    left, top = max(int(x0 - grow_x), 0), max(int(y0 - grow_y), 0)
    right, bottom = min(int(x1 + grow_x), width), min(int(y1 + grow_y), height)
    image = picture_bgr[top:bottom, left:right].copy()
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    # Ellipse around the centre of the box: opaque in the face, transparent at the cut-out's edge.
    reach = np.hypot(
        (columns - (x0 + x1) / 2) / ((x1 - x0) / 2 + grow_x), (rows - (y0 + y1) / 2) / ((y1 - y0) / 2 + grow_y)
    )
    opacity = ((1 - reach) / 0.12).clip(0, 1)[..., np.newaxis].astype(np.float32)
    return Cutout(image, opacity, np.array([x0 - left, y0 - top, x1 - left, y1 - top], np.float32))


def moving_faces(
    cutouts: Sequence[Cutout] | Callable[[int, int], Cutout], background_bgr: ImageU8, frames: int = FRAMES
) -> tuple[list[ImageU8], list[list[KnownFace]]]:
    """Return the frames, uint8 (480, 640, 3), and the known faces of each.

    The four paths take the cutouts in turn; a function returns that of path `who` in frame `index`.
    """
    background = np.asarray(cv2.resize(background_bgr, FRAME_WH, interpolation=cv2.INTER_AREA), np.uint8)
    noise = np.random.default_rng(0)
    images, known = [], []
    for index in range(frames):
        progress = index / frames
        canvas = background.astype(np.float32)
        faces: list[KnownFace] = []
        for who, path in enumerate(_PATHS):
            if path.first <= progress <= path.last:
                cutout = cutouts(who, index) if callable(cutouts) else cutouts[who % len(cutouts)]
                faces.append(KnownFace(who, _paste(canvas, cutout, path, progress), visible=True))
        # Sensor noise: without it the detector returns equal boxes for equal frames.
        canvas += noise.normal(0, 2, canvas.shape)
        images.append(canvas.clip(0, 255).astype(np.uint8))
        known.append([_judged(face, faces[place + 1 :]) for place, face in enumerate(faces)])
    return images, known


def _paste(canvas: FloatArray, cutout: Cutout, path: _Path, progress: float) -> FloatArray:
    """Draw a cutout into the frame `canvas` and return the face's box in the frame."""
    box = cutout.xyxy
    scale = path.height_px(progress) / float(box[3] - box[1])
    centre = np.multiply(path.centre(progress), FRAME_WH)
    shift = centre - (box[:2] + box[2:]) / 2 * scale
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    if scale < 1:
        # warpAffine alone would skip pixels when it shrinks.
        size_wh = max(round(cutout.image_bgr.shape[1] * scale), 1), max(round(cutout.image_bgr.shape[0] * scale), 1)
        image = cv2.resize(cutout.image_bgr, size_wh, interpolation=cv2.INTER_AREA)
        opacity = cv2.resize(cutout.opacity, size_wh, interpolation=cv2.INTER_AREA)
        exact = np.divide(size_wh, (cutout.image_bgr.shape[1], cutout.image_bgr.shape[0]))
        matrix[0, 0], matrix[1, 1] = scale / exact[0], scale / exact[1]
    else:
        image, opacity = cutout.image_bgr, cutout.opacity[..., 0]
    face = cv2.warpAffine(image, matrix, FRAME_WH, flags=cv2.INTER_LINEAR).astype(np.float32)
    share = cv2.warpAffine(opacity, matrix, FRAME_WH, flags=cv2.INTER_LINEAR)[..., np.newaxis]
    canvas *= 1 - share
    canvas += face * share
    return np.concatenate((box[:2] * scale + shift, box[2:] * scale + shift)).astype(np.float32)


def _judged(face: KnownFace, in_front: Sequence[KnownFace]) -> KnownFace:
    """Return the face with `visible` set: false if more than half of its box is hidden or outside the frame."""
    x0, y0, x1, y1 = face.xyxy
    area = (x1 - x0) * (y1 - y0)
    inside = max(min(x1, FRAME_WH[0]) - max(x0, 0), 0) * max(min(y1, FRAME_WH[1]) - max(y0, 0), 0)
    hidden = area - inside
    for other in in_front:
        low, high = np.maximum(face.xyxy[:2], other.xyxy[:2]), np.minimum(face.xyxy[2:], other.xyxy[2:])
        hidden += float((high - low).clip(0).prod())
    return KnownFace(face.who, face.xyxy, bool(hidden <= _MAX_HIDDEN * area))
