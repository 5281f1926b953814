"""Draws boxes and labels into a frame, and makes faces unrecognisable."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.zones import Zone
from edgekit.preprocess import FloatArray, ImageU8

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


def draw_faces(image_bgr: ImageU8, faces: Iterable[Face], zones: Iterable[Zone] = ()) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3) B, G, R, with the box, label and probability of each face drawn in.

    An uncertain face is grey and has no probability. Zones have a white outline, with their name at the lowest corner.

    Each class has one colour, the same in every frame and output. `drawn_label` describes labels that are not ASCII. Of
    a box that covers the whole frame, only the label is drawn, at the top left.

    Args:
        image_bgr: The frame, which is not changed.
        faces: Its faces.
        zones: The zones to draw, such as `Detections.zones`.
    """
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    line_px = max(_MIN_LINE_PX, round(min(height, width) / _PX_PER_LINE_PX))
    for zone in zones:
        corners = (np.array(zone.corners) * (width, height)).round().astype(np.int32)  # (corners, 2): x, y in pixels
        cv2.polylines(canvas, [corners], isClosed=True, color=_WHITE, thickness=line_px)
        lowest_corners = [(x, y) for x, y in corners.tolist() if y == corners[:, 1].max()]
        _draw_plate(canvas, zone.name, min(lowest_corners), _WHITE)  # at the leftmost of them
    labelled = []  # those that were classified
    for face in faces:
        x0, y0, x1, y1 = _rounded_xyxy(face)
        covers_frame = x0 <= 0 and y0 <= 0 and x1 >= width and y1 >= height
        if not covers_frame:
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
    "class N", with its position in `labels`, from 0. If it is not in `labels`, a "?" replaces each of these letters.
    """
    if label.isascii():
        return label
    text = _without_accents(label)
    looks_like_another = any(_without_accents(other) == text for other in labels if other != label)
    if text.isascii() and not looks_like_another:
        return text
    if label in labels:
        return f"class {labels.index(label)}"
    return text.encode("ascii", "replace").decode()


def _without_accents(text: str) -> str:
    """Return a text whose letters have no accents."""
    # NFKD separates a letter from its accents.
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def _draw_label(canvas: ImageU8, face: Face) -> None:
    """Draw the label and the probability of a face at the upper left corner of its box."""
    # The label of an uncertain face is "uncertain". Its probability belongs to the most probable class, which is not
    # drawn.
    probability = "" if face.uncertain else f" {face.probability:.0%}"
    text = f"{drawn_label(face.label, list(face.probabilities))}{probability}"
    left, top, _, _ = _rounded_xyxy(face)
    _draw_plate(canvas, text, (left, top), class_colour(face))


def _draw_plate(canvas: ImageU8, text: str, corner_xy: tuple[int, int], colour_bgr: _Bgr) -> None:
    """Draw a text on a filled rectangle, the plate, whose lower left corner is `corner_xy`.

    The plate is moved into the frame, and its text is smaller if the frame is too narrow for it.
    """
    height, width = canvas.shape[:2]
    scale = max(_MIN_FONT_SCALE, min(height, width) / _PX_PER_FONT_SCALE)
    pad = max(2, round(6 * scale))  # from the text to the edges of the plate
    (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    if text_w + 2 * pad > width:
        scale *= max(width - 2 * pad, 1) / text_w
        (text_w, text_h), baseline = cv2.getTextSize(text, _FONT, scale, _stroke_px(scale))
    plate_w, plate_h = text_w + 2 * pad, text_h + baseline + 2 * pad
    x, y = corner_xy
    top = y - plate_h if y >= plate_h else y  # below the corner if there is too little room above
    left = min(max(x, 0), max(width - plate_w, 0))
    top = min(max(top, 0), max(height - plate_h, 0))
    cv2.rectangle(canvas, (left, top), (left + plate_w - 1, top + plate_h - 1), colour_bgr, cv2.FILLED)
    luma = sum(weight * value for weight, value in zip(_LUMA, colour_bgr, strict=True))
    text_bgr = _BLACK if luma >= _DARK_TEXT_FROM else _WHITE
    text_xy = left + pad, top + plate_h - pad - baseline
    cv2.putText(canvas, text, text_xy, _FONT, scale, text_bgr, _stroke_px(scale), cv2.LINE_AA)


def _stroke_px(font_scale: float) -> int:
    """Return the line width of letters."""
    return max(1, round(2 * font_scale))


def _rounded_xyxy(face: Face) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom of a face's box in whole pixels."""
    x0, y0, x1, y1 = (round(float(value)) for value in face.xyxy)
    return x0, y0, x1, y1


# Left, top, right, bottom in frame pixels.
Xyxy: TypeAlias = FloatArray | tuple[float, float, float, float]

# 6 x 6 values per face are too few to recognise it. The margin covers chin, ears and hair, which detectors cut off.
_CELLS = 6
_MARGIN = 0.25
# Boxes are kept for this long, in case the detector misses a face in a few frames of a video.
_KEPT_S = 0.5


class FaceBlur:
    """Collects the face boxes of a video's latest half second, or of the latest picture, for `hide_boxes`."""

    def __init__(self, presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s) -> None:
        """Take a frame's time from `presentation_time_s`; for a recording, that must be its position in the video."""
        self._presentation_time_s = presentation_time_s
        # Each box with the last time at which it is hidden.
        self._boxes: list[tuple[float, Xyxy]] = []

    def update(self, frame: Frame, result: FrameResult) -> list[Xyxy]:
        """Return the boxes to hide in a frame: those of its faces, and those of the half second before.

        Must be called for every frame, because it keeps their boxes.
        """
        time_s = self._presentation_time_s(frame)
        for face in result.faces:
            # Faces of an image file have a track only if the files are the frames of a video. Other files may show
            # other people: their boxes are hidden in one frame only.
            is_video = frame.file is None or face.track_id is not None
            hidden_until_s = time_s + _KEPT_S if is_video else time_s
            self._boxes.append((hidden_until_s, face.xyxy))
        self._boxes = [(until_s, xyxy) for until_s, xyxy in self._boxes if time_s <= until_s]
        return [xyxy for _until_s, xyxy in self._boxes]


# Returns the boxes to hide in a frame: `FaceBlur.update`, or `hide_nothing`.
Hide: TypeAlias = Callable[["Frame", "FrameResult"], Sequence[Xyxy]]


def hide_nothing(_frame: Frame, _result: FrameResult) -> Sequence[Xyxy]:
    """Return no boxes."""
    return ()


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame to draw: with its faces, and the boxes in which it is made unrecognisable."""

    frame: Frame
    result: FrameResult
    hidden_xyxy: Sequence[Xyxy]
    name: str = ""

    def drawn(self) -> ImageU8:
        """Return the drawn image, uint8 (H, W, 3) B, G, R."""
        faces = self.result.faces
        return draw_faces(hide_boxes(self.frame.image_bgr, self.hidden_xyxy), faces, faces.zones)


def hide_boxes(image_bgr: ImageU8, boxes_xyxy: Sequence[Xyxy]) -> ImageU8:
    """Return a frame, uint8 (H, W, 3), with each box, and a margin around it, pixelated to 6 x 6 cells.

    Without boxes it is the frame itself, otherwise a copy.
    """
    if not len(boxes_xyxy):
        return image_bgr
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    # The cells are means of `image_bgr`, not of `canvas`, so that they do not depend on the boxes before.
    for box in boxes_xyxy:
        x0, y0, x1, y1 = map(float, box)
        margin = _MARGIN * max(x1 - x0, y1 - y0)
        left, right = max(0, int(x0 - margin)), min(width, int(x1 + margin) + 1)
        top, bottom = max(0, int(y0 - margin)), min(height, int(y1 + margin) + 1)
        if left >= right or top >= bottom:
            continue
        region = image_bgr[top:bottom, left:right]
        cells = (min(_CELLS, right - left), min(_CELLS, bottom - top))
        coarse = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
        canvas[top:bottom, left:right] = np.asarray(
            cv2.resize(coarse, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST), np.uint8
        )
    return canvas
