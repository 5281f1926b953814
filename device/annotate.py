"""Draws boxes and labels into a frame."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2

from edgekit.device.detections import Face
from edgekit.preprocess import ImageU8

_Bgr: TypeAlias = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK: _Bgr = (0, 0, 0)
_WHITE: _Bgr = (255, 255, 255)

_GREY: _Bgr = (158, 158, 158)
# By the position of the label in the model. The seven colours of Okabe and Ito, which people with colour blindness can
# distinguish (Color Universal Design, 2008), then three of Paul Tol's muted scheme for models with more labels.
_CLASS_COLOURS: tuple[_Bgr, ...] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # bluish green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # reddish purple
    (85, 34, 136),  # wine
    (153, 170, 68),  # teal
    (51, 153, 153),  # olive
)
# Weights of B, G and R in the luma (ITU-R BT.601). Text is black on a plate that is lighter than this.
_LUMA = (0.114, 0.587, 0.299)
_DARK_TEXT_FROM = 110

# Line width and font scale grow with the shorter side of the frame.
_PX_PER_LINE_PX = 240
_MIN_LINE_PX = 2
_PX_PER_FONT_SCALE = 700
_MIN_FONT_SCALE = 0.35


def draw_faces(image_bgr: ImageU8, faces: Iterable[Face]) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3) B, G, R, with the box, label and probability of each face drawn in.

    An uncertain face is grey and has no probability.

    Each class has one colour, the same in every frame and output. `drawn_label` describes labels that are not ASCII. A
    box that covers the whole frame is not outlined: then the label alone is at the top left.

    Args:
        image_bgr: The frame, which is not changed.
        faces: Its faces.
    """
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    line_px = max(_MIN_LINE_PX, round(min(height, width) / _PX_PER_LINE_PX))
    labelled = []
    for face in faces:
        x0, y0, x1, y1 = _pixels(face)
        if x0 > 0 or y0 > 0 or x1 < width or y1 < height:
            cv2.rectangle(canvas, (x0, y0), (x1, y1), class_colour(face), line_px)
        if face.label:
            labelled.append(face)
    # After all boxes, so that none crosses a label.
    for face in labelled:
        _draw_label(canvas, face)
    return canvas


def class_colour(face: Face) -> _Bgr:
    """Return the colour B, G, R of a face's class: by its position in the model, grey if it is uncertain."""
    if face.uncertain or face.label not in face.probabilities:
        return _GREY
    return _CLASS_COLOURS[list(face.probabilities).index(face.label) % len(_CLASS_COLOURS)]


def drawn_label(label: str, labels: Sequence[str]) -> str:
    """Return the text that is drawn for one of the model's labels; OpenCV's fonts contain ASCII only.

    Accents are left out. A label with other letters, or that would look like another label without its accents, becomes
    "class N", with its position in `labels`, from 0.
    """
    if label.isascii():
        return label
    text = _without_accents(label)
    is_unique = sum(_without_accents(other) == text for other in labels) <= 1
    if text.isascii() and is_unique:
        return text
    return f"class {labels.index(label)}" if label in labels else text.encode("ascii", "replace").decode()


def _without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def _draw_label(canvas: ImageU8, face: Face) -> None:
    """Draw the label of a face on a filled plate above its box, inside the frame, smaller if the frame is narrow."""
    height, width = canvas.shape[:2]
    # The probability of an uncertain face is that of a class that is not drawn.
    probability = "" if face.uncertain else f" {face.probability:.0%}"
    text = f"{drawn_label(face.label, list(face.probabilities))}{probability}"
    scale = max(_MIN_FONT_SCALE, min(height, width) / _PX_PER_FONT_SCALE)
    pad = _pad_px(scale)
    (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    if text_w + 2 * pad > width:
        scale *= max(width - 2 * pad, 1) / text_w
        (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    plate_w, plate_h = text_w + 2 * pad, text_h + baseline + 2 * pad
    x0, y0, _, _ = _pixels(face)
    left = min(max(x0, 0), max(width - plate_w, 0))
    top = min(max(y0 - plate_h if y0 >= plate_h else y0, 0), max(height - plate_h, 0))
    colour = class_colour(face)
    cv2.rectangle(canvas, (left, top), (left + plate_w - 1, top + plate_h - 1), colour, cv2.FILLED)
    luma = sum(weight * value for weight, value in zip(_LUMA, colour, strict=True))
    text_bgr = _BLACK if luma >= _DARK_TEXT_FROM else _WHITE
    origin = left + pad, top + plate_h - pad - baseline
    cv2.putText(canvas, text, origin, _FONT, scale, text_bgr, _stroke_px(scale), cv2.LINE_AA)


def _stroke_px(font_scale: float) -> int:
    return max(1, round(2 * font_scale))


def _pad_px(font_scale: float) -> int:
    return max(2, round(6 * font_scale))


def _pixels(face: Face) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(float(value)) for value in face.xyxy)
    return x0, y0, x1, y1
