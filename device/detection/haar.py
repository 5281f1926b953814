"""OpenCV's Haar cascade for frontal faces: needs no download, but needs OpenCV 4.

Viola and Jones: Rapid object detection using a boosted cascade of simple features (CVPR 2001), with OpenCV's cascade
`haarcascade_frontalface_default`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgekit.device.detections import Detections
from edgekit.errors import InputError
from edgekit.preprocess import ImageU8

# Chosen on two videos and three images: steps of 1.2 on an equalised image find a face in as many frames as steps of
# 1.1 without equalisation, at a fraction of the cost.
SCALE_STEP = 1.2
MIN_NEIGHBORS = 4
MIN_FACE_FRACTION = 0.1

_CASCADE = "haarcascade_frontalface_default.xml"
_TRAINED_FACE_PX = 24
# Folders of the cascades of Linux distributions; their OpenCV has no cv2.data.
SYSTEM_FOLDERS = ("/usr/share/opencv4/haarcascades", "/usr/local/share/opencv4/haarcascades")


class Haar:
    """Detects frontal faces with the cascade. Use one object per thread."""

    name = "haar"

    def __init__(self, input_size_px: int, score_threshold: float) -> None:
        """Load the cascade.

        Args:
            input_size_px: Longer side of the image that the cascade searches.
            score_threshold: Faces with a lower score (see `detect`) are discarded.

        Raises:
            InputError: The installed OpenCV has no cascades.
        """
        self._cascade = _load_cascade()
        self.input_size_px = input_size_px
        self._score_threshold = score_threshold

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return the faces of a uint8 (H, W, 3) image that are not smaller than a tenth of the image's shorter side.

        A cascade has no probability: the score is n / (n + 1) for a face found in n neighbouring windows. n is at least
        4, so that no score is below 0.8.
        """
        height, width = image_bgr.shape[:2]
        scale = self.input_size_px / max(width, height)
        size_wh = (max(round(width * scale), 1), max(round(height * scale), 1))
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        # Area averaging, because the features are a few pixels wide and suffer from aliasing. It is fast on gray.
        gray = cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        # In pixels of the scaled image.
        min_face_px = max(_TRAINED_FACE_PX, round(min(size_wh) * MIN_FACE_FRACTION))
        # A box is the mean of the neighbouring windows in which the face was found; `counts` are their numbers.
        boxes, counts = self._cascade.detectMultiScale2(
            cv2.equalizeHist(gray), SCALE_STEP, MIN_NEIGHBORS, minSize=(min_face_px, min_face_px)
        )
        xywh = np.asarray(boxes, np.float32).reshape(-1, 4)  # reshaped, because OpenCV returns () without faces
        windows = np.asarray(counts, np.float32).reshape(-1)
        scores = windows / (windows + 1)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= self._score_threshold]
        to_frame = np.tile(np.divide((width, height), size_wh), 2).astype(np.float32)  # (4,): factors for xyxy
        xyxy = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1) * to_frame
        return Detections(xyxy[order], scores[order])


def _load_cascade() -> cv2.CascadeClassifier:
    """Return the cascade of the installed OpenCV; raise InputError if there is none."""
    data = getattr(cv2, "data", None)  # None: the OpenCV of a distribution
    shipped = [data.haarcascades] if data is not None else []
    for folder in (*shipped, *SYSTEM_FOLDERS):
        path = Path(folder) / _CASCADE
        if path.is_file():
            cascade = cv2.CascadeClassifier(str(path))
            if not cascade.empty():
                return cascade
    raise InputError(
        f"detector 'haar' needs the file {_CASCADE}, which is missing: install 'opencv-python-headless>=4.10,<5' "
        "(for Debian's own OpenCV: the package opencv-data) or choose the detector 'yunet'"
    )
