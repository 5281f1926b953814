"""Video recording for long runs: file rotation, encoding in a thread, and recovery from disk outages."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from edgekit.device.blur import FaceBlur, Xyxy
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.rotation import Outage, Rotation, shift
from edgekit.device.sinks.video import VideoSink
from edgekit.device.sinks.worker import Worker
from edgekit.errors import EdgekitError, StorageError

# Few frames are queued because they are large; a live video repeats the previous frame in place of a dropped one.
_MAX_QUEUED_FRAMES = 3
_RETRY_S = 10.0
# Free space needed to resume: with less, each retry on a full disk would leave one more short file.
_RESUME_BYTES = 32 << 20
_CLOSE_TIMEOUT_S = 1.5


def open_video(
    target: Path,
    fps: float | None,
    live: bool,
    rotation: Rotation,
    blur: FaceBlur | None,
    notify: Callable[[str], None],
) -> Sink:
    """Return a sink that records a video to `target`.

    The video of a live source is encoded by a thread, which drops frames when it is behind and survives disk outages.
    Every frame of a recording is written, and a disk error ends the run.

    Args:
        target: The .mp4 file.
        fps: Nominal frame rate of the source, if known.
        live: Whether the source is live.
        rotation: When to begin a new file.
        blur: Makes faces unrecognisable; must not be shared with another sink.
        notify: Called with one line for each warning, possibly from another thread.

    Raises:
        InputError: `target` is not the name of an .mp4 file.
    """
    rotating = RotatingVideo(target, fps, live, rotation, blur)
    return RecorderThread(rotating, f"recording to '{target}'", notify) if live else rotating


class RotatingVideo(Sink):
    """A video in one or more files. `target` is the latest file; a higher number means an older file."""

    def __init__(self, target: Path, fps: float | None, live: bool, rotation: Rotation, blur: FaceBlur | None) -> None:
        """Prepare to write `target`; arguments as in `open_video`.

        Raises:
            InputError: `target` is not the name of an .mp4 file.
        """
        self._target = target
        self._rotation = rotation
        self._make = partial(VideoSink, target, fps, live, self._rename_older)
        self._file = self._make()
        # One blur for all files, because a face may be visible across the change of files.
        self._blur = blur
        self._started_s: float | None = None
        self._finished = 0

    def __exit__(self, *exception: object) -> None:
        """Finish the current file.

        Raises:
            StorageError: The file cannot be finished.
        """
        self.finish_file()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame with the faces drawn in, or blurred; raises as `record`."""
        self.record(frame, result, self.hidden_boxes(frame, result))

    def hidden_boxes(self, frame: Frame, result: FrameResult) -> list[Xyxy]:
        """Return the boxes to blur in this frame; must be called for every frame, recorded or not."""
        if self._blur is None:
            return []
        self._blur.update(frame, result)
        return self._blur.boxes()

    def record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> None:
        """Append the frame, to a new file if the rotation requires it.

        Raises:
            StorageError: The disk is full or not writable.
            InputError: The encoder does not support the size of the frame.
        """
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s
        elif self._rotation.is_due(self._file.written_bytes(), now_s - self._started_s):
            self.finish_file()
            self._started_s = now_s
        self._file.write(frame, result, hidden_xyxy)

    def finish_file(self) -> None:
        """Complete and name the current file; the next frame begins another.

        Raises:
            StorageError: The file cannot be finished.
        """
        file, self._file, self._started_s = self._file, self._make(), None
        file.__exit__(None, None, None)

    def free_bytes(self) -> int:
        """Return the free space on the disk of `target`, 0 if unknown."""
        try:
            return shutil.disk_usage(self._target.parent).free
        except OSError:
            return 0

    def _rename_older(self) -> None:
        """Number the older files, just before the new one gets its name."""
        if self._rotation.active:
            shift(self._target, self._rotation.keep)
        elif self._finished:
            # There was a disk outage in between: keep what was recorded before.
            shift(self._target, None)
        self._finished += 1


class RecorderThread(Sink):
    """Encodes a video in a thread. During a disk outage, frames are dropped and writing is retried regularly.

    An outage is reported once.
    """

    def __init__(
        self,
        video: RotatingVideo,
        what: str,
        notify: Callable[[str], None],
        retry_s: float = _RETRY_S,
        resume_bytes: int = _RESUME_BYTES,
    ) -> None:
        self._video = video
        self._resume_bytes = resume_bytes
        self._outage = Outage(what, notify)
        self._what = what
        self._notify = notify
        self._retry_s = retry_s
        self._queue: queue.Queue[tuple[Frame, FrameResult, list[Xyxy]] | None] = queue.Queue(_MAX_QUEUED_FRAMES)
        self._thread = Worker(self._work, "video")
        self.dropped = 0
        self._frames = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the video.

        Raises:
            EdgekitError: The frames cannot be encoded.
        """
        end_s = time.monotonic() + _CLOSE_TIMEOUT_S
        # On a disk that stalls the queue stays full: the end of the run must not wait for it.
        while self._thread.is_alive() and time.monotonic() < end_s:
            with suppress(queue.Full):
                self._queue.put(None, timeout=0.1)
                break
        self._thread.join(max(0.0, end_s - time.monotonic()))
        if self.dropped:
            counts = f"{self.dropped} of {self._frames} frames"
            self._notify(f"{self._what}: dropped {counts} because the encoder or the disk was too slow")
        self._thread.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Queue a frame, or drop it if the encoder is behind.

        Raises:
            EdgekitError: The frames cannot be encoded.
        """
        self._thread.check()
        self._frames += 1
        # This is not done in the thread, because the faces of dropped frames count too.
        hidden_xyxy = self._video.hidden_boxes(frame, result)
        try:
            self._queue.put_nowait((frame, result, hidden_xyxy))
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        retry_at_s = float("-inf")
        while (item := self._queue.get()) is not None:
            if time.monotonic() >= retry_at_s and not self._record(*item):
                retry_at_s = time.monotonic() + self._retry_s
        try:
            self._video.finish_file()
        except StorageError as error:
            self._outage.begin(str(error))

    def _record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> bool:
        if self._outage.active and self._video.free_bytes() < self._resume_bytes:
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
