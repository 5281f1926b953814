"""Results as a video in one or more files: the frames with boxes and labels drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgekit.device.blur import Xyxy
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.imaging import opencv_text, read_image, resize
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import VIDEO
from edgekit.device.sinks.file_series import FileSeries, require_suffix
from edgekit.device.sinks.mp4 import H264File, require_pyav
from edgekit.device.sinks.snapshots import Shot
from edgekit.device.sinks.writer import Writer, WriterRules
from edgekit.preprocess import ImageU8

# For sources without a frame rate.
_STILLS_FPS = 5.0
_CAMERA_FPS = 15.0
# Few frames wait, because they are large.
_MOST_FRAMES = 3


class VideoSink(Writer[Shot]):
    """Encodes each frame. A file has the size of its first frame, or of the largest picture of a folder; frames of
    other sizes are fitted into it.
    """

    def __init__(self, target: Path, run: RunContext) -> None:
        """Prepare to write the .mp4 file `target`; images without a frame rate are shown for 0.2 s each.

        Raises:
            InputError: `target` does not end in .mp4, or PyAV is missing.
        """
        require_suffix(target, ".mp4", "video")
        require_pyav()
        source = run.source
        self._blur = run.blur()
        self._fps = source.fps or (_CAMERA_FPS if source.live else _STILLS_FPS)
        self._time_s = presentation_time_s(source, _STILLS_FPS)
        self._size_wh = _largest_wh(getattr(source, "paths", ()))
        rules = WriterRules(
            what=f"recording to '{target}'",
            most=_MOST_FRAMES,
            slow="encoder or disk too slow",
            reserve=run.reserve(target, VIDEO),
        )
        files = FileSeries(target, run.rules.rotation, self._open_file)
        super().__init__(files, rules, run.account("save"), run.shutdown, run.notify, threaded=source.live)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame."""
        hidden: list[Xyxy] = []
        # Not in the thread, because the faces of dropped frames count too.
        if self._blur is not None:
            self._blur.update(frame, result)
            hidden = self._blur.boxes()
        self.put(Shot(frame, result, hidden))

    def _open_file(self, path: Path, shot: Shot) -> _DrawnVideo:
        width, height = self._size_wh or shot.frame.size_wh
        # The encoders need an even width and height.
        size_wh = width + width % 2, height + height % 2
        return _DrawnVideo(path, size_wh, self._fps, self._time_s)


class _DrawnVideo(H264File):
    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float, time_s: Callable[[Frame], float]) -> None:
        super().__init__(path, size_wh, fps)
        self._size_wh = size_wh
        self._time_s = time_s

    def write(self, items: Sequence[Shot]) -> int:
        """Append frames."""
        return sum(self.append(_fit(shot.drawn(), self._size_wh), self._time_s(shot.frame)) for shot in items)


def _largest_wh(paths: Sequence[Path]) -> tuple[int, int] | None:
    """Return width and height of the image file with the most pixels; None unless there are several files."""
    if len(paths) < 2:
        return None
    # At an eighth of the size, because only the largest is needed exactly.
    reduced: dict[Path, Any] = {
        path: cv2.imread(opencv_text(str(path)), cv2.IMREAD_REDUCED_GRAYSCALE_8) for path in paths
    }
    sizes = {path: image.size for path, image in reduced.items() if image is not None}
    if not sizes:
        return None
    height, width = read_image(max(sizes, key=lambda path: sizes[path])).shape[:2]
    return width, height


def _fit(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return `image` centred on black, resized only if it differs from the video size by more than 1 px."""
    width, height = size_wh
    have_h, have_w = image.shape[:2]
    if (have_w, have_h) == size_wh:
        return image
    if not (0 <= width - have_w <= 1 and 0 <= height - have_h <= 1):
        scale = min(width / have_w, height / have_h)
        have_w, have_h = max(1, round(have_w * scale)), max(1, round(have_h * scale))
        image = resize(image, (have_w, have_h))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - have_h) // 2, (width - have_w) // 2
    canvas[top : top + have_h, left : left + have_w] = image
    return canvas
