"""Face detectors: an image in, boxes with scores and landmarks out.

Importing this package imports no detector; `create_detector` and `detect_faces` import the one they need.

    import cv2
    import edgekit

    image_bgr = cv2.imread("group.jpg")
    for face in edgekit.detect_faces(image_bgr):
        print(face.xyxy, face.score)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from edgekit.contract import Subject
from edgekit.device import registry
from edgekit.device.detections import Detections
from edgekit.device.region import DEFAULT_INPUT_SIZE_PX, MAX_INPUT_SIZE_PX, MIN_INPUT_SIZE_PX
from edgekit.downloads import YUNET, UnavailableError, cached_download, default_cache_dir
from edgekit.errors import InputError, warn
from edgekit.preprocess import AnyImage, ImageU8

DEFAULT_DETECTOR = "yunet"
DEFAULT_SCORE_THRESHOLD = 0.7


class Detector(Protocol):
    """Finds faces; `name` is the name in reports."""

    name: str

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return the faces of a uint8 (H, W, 3) image, the highest score first."""


@runtime_checkable
class Sizable(Protocol):
    """A detector that scales its input to a longer side of `input_size_px`, which may be set at any time."""

    input_size_px: int


def fixed_input_px(detector: Detector) -> int | None:
    """Return the longer side of the only input size of a detector, such as a YuNet file of fixed size; None: any."""
    fixed_size_hw: tuple[int, int] | None = getattr(detector, "fixed_size_hw", None)
    return max(fixed_size_hw) if fixed_size_hw else None


@dataclass(frozen=True)
class DetectorOptions:
    """Arguments of the function that creates a registered detector; see `create_detector`."""

    model_path: Path | None
    input_size_px: int
    score_threshold: float
    intra_op_threads: int | None
    notify: Callable[[str], None]


class WholeFrame:
    """Returns the whole image as one face, for images that are already cropped to a face."""

    name = "none"

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return one box of the size of the image, with score 1."""
        height, width = image_bgr.shape[:2]
        return Detections(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32), are_regions=True)


# The detectors of `detect_faces`. Each thread has its own, because a detector keeps its input buffer.
_kept = threading.local()


def detect_faces(
    image_bgr: AnyImage,
    *,
    detector: str | Path = DEFAULT_DETECTOR,
    input_size_px: int | None = None,
    score_threshold: float = DEFAULT_SCORE_THRESHOLD,
    notify: Callable[[str], None] = warn,
) -> Detections:
    """Return the faces of one image, the highest score first.

    The detector is created on the first call and kept for further calls with the same options in the same thread.

    Args:
        image_bgr: uint8 (H, W, 3) B, G, R, or gray (H, W).
        detector: "yunet" (whose file is downloaded once into the user's cache), "haar", "none" (the whole image is one
            face), YuNet's .onnx file, or a registered name.
        input_size_px: Longer side of the detector's input; None: 320, or the fixed size of the file. A smaller input is
            faster, but fewer small faces are found.
        score_threshold: Faces with a lower score are discarded.
        notify: Called with one line about a download or a replaced detector.

    Raises:
        InputError: As `create_detector`, or the image has another shape or type.
        StorageError: As `create_detector`.
    """
    from edgekit.device.imaging import as_frame, check_image

    kept: dict[str, Detector] = _kept.__dict__  # the detectors of this thread, by their options as a text
    key = repr((str(detector), input_size_px, score_threshold))
    image = check_image(image_bgr)
    if key not in kept:
        kept[key] = create_detector(
            str(detector), input_size_px=input_size_px, score_threshold=score_threshold, notify=notify
        )
    return kept[key].detect(as_frame(image))


def needed_detector(subject: Subject, requested: str | None, model: Path) -> str:
    """Return the name of the detector for a model: the requested one, by default what the model's subject needs.

    Raises:
        InputError: A detector is requested for a model that classifies whole images.
    """
    if subject == "face":
        return requested or DEFAULT_DETECTOR
    if requested not in (None, "none"):
        raise InputError(
            f"model '{model}' classifies the whole image and needs no face detector: leave out detector '{requested}'"
        )
    return "none"


def create_detector(
    name: str,
    *,
    input_size_px: int | None = None,
    score_threshold: float = DEFAULT_SCORE_THRESHOLD,
    intra_op_threads: int | None = None,
    notify: Callable[[str], None],
) -> Detector:
    """Return a detector by name.

    Args:
        name: yunet, haar, none, YuNet's .onnx file, or a name that another package has registered. YuNet's file is
            downloaded once into the user's cache; if that fails, Haar replaces YuNet and `notify` receives the reason.
        input_size_px: Longer side of the detector's input; None: 320, or the fixed size of the file.
        score_threshold: Faces with a lower score are discarded.
        intra_op_threads: Threads within one inference of YuNet; default: `session.default_intra_op_threads`.
        notify: Called with one line about a download or a replaced detector.

    Raises:
        InputError: The name is unknown, a value is out of range or not for this detector, the model file is missing,
            not a YuNet or of another, fixed size, or the installed OpenCV has no Haar cascades.
        StorageError: The download is not the expected file.
    """
    size_px = DEFAULT_INPUT_SIZE_PX if input_size_px is None else input_size_px
    if not MIN_INPUT_SIZE_PX <= size_px <= MAX_INPUT_SIZE_PX:
        raise InputError(
            f"detector input size {size_px} px is out of range: give {MIN_INPUT_SIZE_PX} to {MAX_INPUT_SIZE_PX}"
        )
    if not 0 < score_threshold < 1:
        raise InputError(f"detector score threshold {score_threshold} is out of range: give a number between 0 and 1")
    model_path = Path(name) if name.endswith(".onnx") else None  # of YuNet
    make = registry.find("detector", name if model_path is None else "yunet")
    detector: Detector = make(DetectorOptions(model_path, size_px, score_threshold, intra_op_threads, notify))
    fixed_px = fixed_input_px(detector)
    if input_size_px is not None and fixed_px not in (None, input_size_px):
        raise InputError(
            f"detector '{name}' has a fixed input of {fixed_px} pixels, not {input_size_px}: "
            "leave out the size, or give another file"
        )
    return detector


def create_yunet(options: DetectorOptions) -> Detector:
    """Return YuNet, or Haar if YuNet's file cannot be downloaded."""
    path = options.model_path or _downloaded_yunet(options.notify)
    if path is None:
        return create_haar(options)
    from edgekit.device.detection.yunet import YuNet

    return YuNet(path, options.input_size_px, options.score_threshold, intra_op_threads=options.intra_op_threads)


def create_haar(options: DetectorOptions) -> Detector:
    """Return OpenCV's Haar cascade."""
    from edgekit.device.detection.haar import Haar

    return Haar(options.input_size_px, options.score_threshold)


def create_whole_frame(_options: DetectorOptions) -> Detector:
    """Return the detector whose only face is the whole frame."""
    return WholeFrame()


def _downloaded_yunet(notify: Callable[[str], None]) -> Path | None:
    """Return YuNet's file; None, with one line for `notify`, if it is not here and cannot be downloaded."""
    try:
        return cached_download(YUNET, notify=notify)
    except UnavailableError as error:
        notify(
            f"{error}. Haar detects the faces instead; it is slower and misses more faces. "
            f"To use YuNet, copy {YUNET.url} to '{default_cache_dir() / YUNET.name}', or give a copy of the file "
            "(edgekit run --detector FILE)"
        )
        return None
