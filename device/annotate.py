"""Draws boxes and labels into a frame."""

from __future__ import annotations

from collections.abc import Iterable

import cv2

from edgekit.device.detections import Face
from edgekit.preprocess import ImageU8

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BOX_BGR = (80, 220, 60)
_UNCERTAIN_BGR = (170, 170, 170)
_TEXT_BGR = (0, 0, 0)

# Line width and font scale grow with the shorter side of the frame.
_PX_PER_LINE_PX = 240
_PX_PER_FONT_SCALE = 600
_MIN_FONT_SCALE = 0.35


def draw_faces(image_bgr: ImageU8, faces: Iterable[Face]) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3) B, G, R, with the box, label and probability of each face drawn in.

    A box that covers the whole frame is not outlined: then the label alone is at the top left.
    """
    canvas = image_bgr.copy()
    for face in faces:
        _draw(canvas, face)
    return canvas


def _draw(canvas: ImageU8, face: Face) -> None:
    height, width = canvas.shape[:2]
    box_bgr = _UNCERTAIN_BGR if face.uncertain else _BOX_BGR
    line_px = max(1, round(min(height, width) / _PX_PER_LINE_PX))
    scale = max(_MIN_FONT_SCALE, min(height, width) / _PX_PER_FONT_SCALE)
    # OpenCV's fonts contain ASCII only.
    text = f"{face.label} {face.probability:.0%}".encode("ascii", "replace").decode()
    x0, y0, x1, y1 = (round(value) for value in face.xyxy)
    if x0 > 0 or y0 > 0 or x1 < width or y1 < height:
        cv2.rectangle(canvas, (x0, y0), (x1, y1), box_bgr, line_px)

    pad = 2 * line_px
    (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, line_px)
    if text_w + 2 * pad > width:
        scale *= max(width - 2 * pad, 1) / text_w
        (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, line_px)
    left = max(0, min(x0, width - text_w - 2 * pad))
    plate_h = text_h + baseline + 2 * pad
    # The label is above the box, or inside it if there is no space between the box and the upper edge of the frame.
    top = max(0, min(y0 - plate_h if y0 >= plate_h else y0, height - plate_h))
    cv2.rectangle(canvas, (left, top), (left + text_w + 2 * pad, top + plate_h), box_bgr, cv2.FILLED)
    cv2.putText(canvas, text, (left + pad, top + pad + text_h), _FONT, scale, _TEXT_BGR, line_px, cv2.LINE_AA)
