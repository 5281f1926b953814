"""Video recording for long runs: encoding in a thread, and recovery from disk outages."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from edgekit.device.accounting import ENCODER_TOO_SLOW, NOT_WRITABLE
from edgekit.device.annotate import Draw
from edgekit.device.blur import FaceBlur, Xyxy
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, Source
from edgekit.device.sink import Sink
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, never_low
from edgekit.device.sinks.mp4 import missing_pyav
from edgekit.device.sinks.rotation import RESUME_BYTES, RETRY_S, Outage, Rotation
from edgekit.device.sinks.video import RotatingVideo, VideoOptions
from edgekit.device.sinks.worker import Worker
from edgekit.errors import EdgekitError, StorageError
from edgekit.install_hint import install_command

# Few frames are queued because they are large.
_MAX_QUEUED_FRAMES = 3
_CLOSE_TIMEOUT_S = 1.5


def open_video(
    target: Path,
    source: Source,
    rotation: Rotation,
    blur: FaceBlur | None,
    notify: Callable[[str], None],
    draw: Draw,
    is_disk_low: Callable[[], bool] = never_low,
) -> Sink:
    """Return a sink that records a video to `target`: H.264 if PyAV is installed, otherwise MPEG-4 by OpenCV.

    The video of a live source is encoded by a thread, which drops frames when it is behind and survives disk outages.
    Every frame of a recording is written, and a disk error ends the run.

    Args:
        target: The .mp4 file.
        source: The source of the frames.
        rotation: When to begin a new file.
        blur: Makes faces unrecognisable; must not be shared with another sink.
        notify: Called with one line for each warning, possibly from another thread.
        draw: Draws the faces into a frame.
        is_disk_low: Whether the video of a live source pauses.

    Raises:
        InputError: `target` is not the name of an .mp4 file.
    """
    reason = missing_pyav()
    rotating = RotatingVideo(VideoOptions.of(target, source, draw, h264=not reason), rotation, blur)
    if reason:
        notify(
            f"recording to '{target}': PyAV cannot be used ({reason}), so the video is MPEG-4: browsers and phones do "
            f"not play it, and it is playable only once it is complete: for H.264 run {install_command('video')}"
        )
    if not source.live:
        return rotating
    return RecorderThread(rotating, f"recording to '{target}'", notify, is_disk_low=is_disk_low)


class RecorderThread(Sink):
    """Encodes a video in a thread. During a disk outage, frames are dropped and writing is retried regularly.

    An outage is reported once. Every frame is counted in the account as written or dropped.
    """

    def __init__(
        self,
        video: RotatingVideo,
        what: str,
        notify: Callable[[str], None],
        retry_s: float = RETRY_S,
        resume_bytes: int = RESUME_BYTES,
        *,
        is_disk_low: Callable[[], bool] = never_low,
    ) -> None:
        self._video = video
        self._resume_bytes = resume_bytes
        self._is_disk_low = is_disk_low
        self._outage = Outage(what, notify)
        self._retry_s = retry_s
        self._queue: queue.Queue[tuple[Frame, FrameResult, list[Xyxy]] | None] = queue.Queue(_MAX_QUEUED_FRAMES)
        self._thread = Worker(self._work, "video")
        self._account = video.account
        self.accounts = video.accounts

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the video.

        Raises:
            EdgekitError: The frames cannot be encoded.
        """
        self._thread.finish(self._queue, _CLOSE_TIMEOUT_S)
        # An encoder that hangs, or a disk that stalls, is left behind with its frames.
        self._account.close(ENCODER_TOO_SLOW)
        self._thread.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Queue a frame, or drop it if the encoder is behind.

        Raises:
            EdgekitError: The frames cannot be encoded.
        """
        self._thread.check()
        self._account.produce()
        # This is not done in the thread, because the faces of dropped frames count too.
        hidden_xyxy = self._video.hidden_boxes(frame, result)
        try:
            self._queue.put_nowait((frame, result, hidden_xyxy))
        except queue.Full:
            self._account.drop(ENCODER_TOO_SLOW)

    def _work(self) -> None:
        retry_at_s = float("-inf")
        while (item := self._queue.get()) is not None:
            if self._is_disk_low():
                self._account.drop(DISK_RESERVE)
                self._finish()
            elif time.monotonic() < retry_at_s:
                self._account.drop(NOT_WRITABLE)
            elif not self._record(*item):
                retry_at_s = time.monotonic() + self._retry_s
        self._finish()

    def _finish(self) -> None:
        try:
            self._video.finish_file()
        except StorageError as error:
            self._outage.begin(str(error))

    def _record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> bool:
        if self._outage.active and self._video.free_bytes() < self._resume_bytes:
            self._account.drop(NOT_WRITABLE)
            return False
        try:
            self._video.record(frame, result, hidden_xyxy)
        except StorageError as error:
            self._outage.begin(str(error))
            with suppress(EdgekitError):
                self._video.finish_file()
            return False
        self._outage.end("")
        return True
