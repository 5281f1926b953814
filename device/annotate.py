"""Draws boxes and labels into a frame."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2

from edgekit.device.detections import Face
from edgekit.preprocess import ImageU8

# Draws the faces of a frame into a copy, as `draw_faces` does.
Draw: TypeAlias = Callable[[ImageU8, Iterable[Face]], ImageU8]
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


def draw_faces(image_bgr: ImageU8, faces: Iterable[Face], *, with_ids: bool = False) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3) B, G, R, with the box, label and probability of each face drawn in.

    An uncertain face is grey and has no probability.

    Each class has one colour, the same in every frame and output. A label that would cover another is drawn at another
    corner of its box. `drawn_label` describes labels that are not ASCII. A box that covers the whole frame is not
    outlined: then the label alone is at the top left.

    Args:
        image_bgr: The frame, which is not changed.
        faces: Its faces.
        with_ids: Whether the number of its track precedes the label of each face.
    """
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    line_px = max(_MIN_LINE_PX, round(min(height, width) / _PX_PER_LINE_PX))
    # From the top: a label that has to move finds space more often above the others' boxes.
    ordered = sorted(faces, key=lambda face: (float(face.xyxy[1]), float(face.xyxy[0])))
    plates: list[_Plate] = []
    for face in ordered:
        x0, y0, x1, y1 = _pixels(face)
        if x0 > 0 or y0 > 0 or x1 < width or y1 < height:
            cv2.rectangle(canvas, (x0, y0), (x1, y1), class_colour(face), line_px)
        if face.label:
            plates.append(_plate(face, with_ids, (width, height), plates))
    for plate in plates:
        _draw_plate(canvas, plate)
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


@dataclass(frozen=True)
class _Plate:
    """The filled rectangle of a label, with its text and the face that it belongs to."""

    left: int
    top: int
    width: int
    height: int
    text: str
    font_scale: float
    baseline_px: int
    face: Face


def _plate(face: Face, with_ids: bool, frame_wh: tuple[int, int], others: Sequence[_Plate]) -> _Plate:
    """Return the label of a face at the first place at its box where it covers none of `others`, else above the box."""
    scale = max(_MIN_FONT_SCALE, min(frame_wh) / _PX_PER_FONT_SCALE)
    number = f"#{face.track_id} " if with_ids and face.track_id is not None else ""
    # The probability of an uncertain face is that of a class that is not drawn.
    probability = "" if face.uncertain else f" {face.probability:.0%}"
    text = f"{number}{drawn_label(face.label, list(face.probabilities))}{probability}"
    plate = _plate_of(face, text, scale, frame_wh)
    x0, y0, x1, y1 = _pixels(face)
    above = y0 - plate.height if y0 >= plate.height else y0
    right = x1 - plate.width
    most = max(frame_wh[0] - plate.width, 0), max(frame_wh[1] - plate.height, 0)
    places = [
        replace(plate, left=min(max(left, 0), most[0]), top=min(max(top, 0), most[1]))
        for left, top in ((x0, above), (right, above), (x0, y1), (x0, y0), (right, y1))
    ]
    return next((place for place in places if not any(_overlap(place, other) for other in others)), places[0])


def _overlap(a: _Plate, b: _Plate) -> bool:
    is_beside = a.left >= b.left + b.width or b.left >= a.left + a.width
    return not (is_beside or a.top >= b.top + b.height or b.top >= a.top + a.height)


def _plate_of(face: Face, text: str, scale: float, frame_wh: tuple[int, int]) -> _Plate:
    """Return a label at the top left of the frame, smaller than `scale` if it would be wider than the frame."""
    pad = _pad_px(scale)
    (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    if text_w + 2 * pad > frame_wh[0]:
        scale *= max(frame_wh[0] - 2 * pad, 1) / text_w
        (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    return _Plate(0, 0, text_w + 2 * pad, text_h + baseline + 2 * pad, text, scale, baseline, face)


def _draw_plate(canvas: ImageU8, plate: _Plate) -> None:
    colour = class_colour(plate.face)
    corner = plate.left + plate.width - 1, plate.top + plate.height - 1
    cv2.rectangle(canvas, (plate.left, plate.top), corner, colour, cv2.FILLED)
    luma = sum(weight * value for weight, value in zip(_LUMA, colour, strict=True))
    pad, stroke_px = _pad_px(plate.font_scale), _stroke_px(plate.font_scale)
    origin = plate.left + pad, plate.top + plate.height - pad - plate.baseline_px
    text_bgr = _BLACK if luma >= _DARK_TEXT_FROM else _WHITE
    cv2.putText(canvas, plate.text, origin, _FONT, plate.font_scale, text_bgr, stroke_px, cv2.LINE_AA)


def _stroke_px(font_scale: float) -> int:
    return max(1, round(2 * font_scale))


def _pad_px(font_scale: float) -> int:
    return max(2, round(6 * font_scale))


def _pixels(face: Face) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(float(value)) for value in face.xyxy)
    return x0, y0, x1, y1
