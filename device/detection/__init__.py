"""Face detectors: a frame in, boxes with scores and landmarks out.

Importing this package loads none of them; `create_detector` imports the one it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from edgekit.device import registry
from edgekit.downloads import YUNET, UnavailableError, cached_download
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8

DETECTOR_NAMES = registry.own_names("detector")
DEFAULT_INPUT_SIZE_PX = 320
DEFAULT_SCORE_THRESHOLD = 0.7
_WITHOUT_FILE = ("haar", "none")


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, the surest first.

    Attributes:
        xyxy: float32 (N, 4): left, top, right, bottom in pixels of the frame; may lie partly outside it.
        scores: float32 (N,), 0 to 1; what they mean is the detector's affair.
        landmarks_xy: float32 (N, 5, 2) in pixels of the frame, as seen in the picture: left eye, right eye, tip of the
            nose, left and right corner of the mouth; None where the detector knows none.
    """

    xyxy: FloatArray
    scores: FloatArray
    landmarks_xy: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds faces; `name` is what reports call it."""

    name: str

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return the faces of an uint8 (H, W, 3) frame."""
        ...


@runtime_checkable
class Sizable(Protocol):
    """A detector that scales what it sees: the longer side becomes `input_size_px`, which may be set at any time."""

    input_size_px: int


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector is made from; see `create_detector`. One that has no use for a value ignores it."""

    model_path: Path | None
    input_size_px: int
    score_threshold: float
    intra_op_threads: int | None
    notify: Callable[[str], None]


class WholeFrame:
    """The whole frame is one face: for pictures that are face crops already."""

    name = "none"

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return one box, as large as the frame, with score 1."""
        height, width = image_bgr.shape[:2]
        return Detections(np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32))


def create_detector(
    name: str,
    *,
    model_path: Path | None = None,
    input_size_px: int = DEFAULT_INPUT_SIZE_PX,
    score_threshold: float = DEFAULT_SCORE_THRESHOLD,
    intra_op_threads: int | None = None,
    notify: Callable[[str], None],
) -> Detector:
    """Return a detector by name.

    Args:
        name: One of `DETECTOR_NAMES`, or one that another package has registered.
        model_path: YuNet's model file; without one it is downloaded once into the user's cache, and where that cannot
            be done, Haar takes its place and `notify` is told why.
        input_size_px: The longer side of the picture the detector works on.
        score_threshold: Faces with a lower score are left out.
        intra_op_threads: YuNet's threads; default: `session.default_intra_op_threads`.
        notify: Called with one line where the user should know something.

    Raises:
        InputError: No such detector, a value out of range, a model file that is missing or no YuNet, or Haar under an
            OpenCV without it.
        StorageError: The download gave another file than expected.
    """
    if model_path is not None and name in _WITHOUT_FILE:
        raise InputError(f"detector '{name}' takes no model file: leave it out or choose the detector 'yunet'")
    if input_size_px < 32:
        raise InputError(f"detector input size {input_size_px} px is too small: give at least 32")
    if not 0 < score_threshold < 1:
        raise InputError(f"detector score threshold {score_threshold} is out of range: give a number between 0 and 1")
    make = registry.find("detector", name)
    detector: Detector = make(DetectorOptions(model_path, input_size_px, score_threshold, intra_op_threads, notify))
    return detector


def create_yunet(options: DetectorOptions) -> Detector:
    """Return YuNet, or Haar where its file cannot be had."""
    path = options.model_path or _downloaded_yunet(options.notify)
    if path is None:
        return create_haar(options)
    from edgekit.device.detection.yunet import YuNet

    return YuNet(path, options.input_size_px, options.score_threshold, intra_op_threads=options.intra_op_threads)


def create_haar(options: DetectorOptions) -> Detector:
    """Return OpenCV's cascade."""
    from edgekit.device.detection.haar import Haar

    return Haar(options.input_size_px, options.score_threshold)


def create_whole_frame(options: DetectorOptions) -> Detector:
    """Return the detector that finds the frame."""
    del options
    return WholeFrame()


def _downloaded_yunet(notify: Callable[[str], None]) -> Path | None:
    try:
        return cached_download(YUNET, notify=notify)
    except UnavailableError as error:
        notify(
            f"{error}: detecting faces with Haar instead, which is slower and misses more; "
            f"to use YuNet, download {YUNET.url} elsewhere and give it with --detector-model FILE"
        )
        return None
