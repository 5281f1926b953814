"""Files that edgekit downloads; a board's bare Python imports this module too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PinnedFile:
    """One immutable file: its name in the cache, URL, SHA-256 and size."""

    name: str
    url: str
    sha256: str
    size_bytes: int


# The URL behind OpenCV Zoo's Git LFS pointer, at the commit that added this version (MIT licence).
YUNET = PinnedFile(
    name="face_detection_yunet_2026may.onnx",
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/47534e27c9851bb1128ccc0102f1145e27f23f98"
    "/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
    sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    size_bytes=229_738,
)
