"""Videos that are recorded for months: in pieces, beside the pipeline, and over a disk that fails at times."""

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

# Pictures are large: few wait, and a live video repeats the one before for those that are left out.
_WAITING_FRAMES = 3
_RETRY_S = 10.0
# Recording goes on when there is room for more than a moment: otherwise a disk that stays full gets a file a try.
_RESUME_BYTES = 32 << 20
_LEAVE_S = 1.5


def open_video(
    target: Path,
    fps: float | None,
    live: bool,
    rotation: Rotation,
    blur: FaceBlur | None,
    notify: Callable[[str], None],
) -> Sink:
    """Return a sink that records to `target`; `blur`, of this sink alone, makes the faces unrecognisable.

    A live source's video is encoded by a thread and survives a disk that takes no more; of other sources every frame
    is written, and such a disk ends the run.

    Raises:
        InputError: `target` is no name for a video.
    """
    pieces = VideoPieces(target, fps, live, rotation, blur)
    return RecorderThread(pieces, f"recording to '{target}'", notify) if live else pieces


class VideoPieces(Sink):
    """A video in one or more files: `target` is the latest, the others are numbered, the higher the older."""

    def __init__(self, target: Path, fps: float | None, live: bool, rotation: Rotation, blur: FaceBlur | None) -> None:
        """Prepare to write `target`; `blur` as for `open_video`.

        Raises:
            InputError: As `VideoSink`.
        """
        self._target = target
        self._rotation = rotation
        self._make = partial(VideoSink, target, fps, live, self._make_room)
        self._piece = self._make()
        # Of all pieces: a face just before the end of one is still there at the beginning of the next.
        self._blur = blur
        self._started_s: float | None = None
        self._finished = 0

    def __exit__(self, *exception: object) -> None:
        """Finish the piece at hand.

        Raises:
            StorageError: It cannot be finished.
        """
        self.finish_piece()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """As `see` and `record`."""
        self.record(frame, result, self.see(frame, result))

    def see(self, frame: Frame, result: FrameResult) -> list[Xyxy]:
        """Return what has to be hidden in this result's frame; to be called with every one, recorded or not."""
        if self._blur is None:
            return []
        self._blur.see(frame, result)
        return self._blur.boxes()

    def record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> None:
        """Append the frame, after a new piece was begun where it is time for one.

        Raises:
            StorageError: There is no room or no permission.
            InputError: No video can have this frame's size.
        """
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s
        elif self._rotation.is_due(self._piece.written_bytes(), now_s - self._started_s):
            self.finish_piece()
            self._started_s = now_s
        self._piece.write(frame, result, hidden_xyxy)

    def finish_piece(self) -> None:
        """Give the piece at hand its name; the next frame begins another.

        Raises:
            StorageError: It cannot be finished.
        """
        piece, self._piece, self._started_s = self._piece, self._make(), None
        piece.__exit__(None, None, None)

    def free_bytes(self) -> int:
        """Return the room on the disk of `target`, 0 where that cannot be told."""
        try:
            return shutil.disk_usage(self._target.parent).free
        except OSError:
            return 0

    def _make_room(self) -> None:
        """Number the older pieces just before the new one takes the name."""
        if self._rotation.active:
            shift(self._target, self._rotation.keep)
        elif self._finished:
            # Nobody asked for pieces: the disk was full in between, and nothing recorded may get lost over it.
            shift(self._target, None)
        self._finished += 1


class RecorderThread:
    """Encodes in a thread; when the disk takes no more it says so once, drops frames, and tries again now and then."""

    def __init__(
        self,
        pieces: VideoPieces,
        what: str,
        notify: Callable[[str], None],
        retry_s: float = _RETRY_S,
        resume_bytes: int = _RESUME_BYTES,
    ) -> None:
        self._pieces = pieces
        self._resume_bytes = resume_bytes
        self._outage = Outage(what, notify)
        self._what = what
        self._notify = notify
        self._retry_s = retry_s
        self._waiting: queue.Queue[tuple[Frame, FrameResult, list[Xyxy]] | None] = queue.Queue(_WAITING_FRAMES)
        self._thread = Worker(self._work, "video")
        self.dropped = 0
        self._seen = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Finish the video.

        Raises:
            EdgekitError: No video can be made of these frames.
        """
        end_s = time.monotonic() + _LEAVE_S
        # A disk that stalls must not hold up the end of the run: its encoder takes nothing more.
        while self._thread.is_alive() and time.monotonic() < end_s:
            with suppress(queue.Full):
                self._waiting.put(None, timeout=0.1)
                break
        self._thread.join(max(0.0, end_s - time.monotonic()))
        if self.dropped:
            counts = f"{self.dropped} of {self._seen} frames"
            self._notify(f"{self._what}: {counts} were left out, encoder or disk was behind")
        self._thread.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take a frame, or leave it out when the encoder is behind.

        Raises:
            EdgekitError: No video can be made of these frames.
        """
        self._thread.check()
        self._seen += 1
        # Here, not in the thread: frames that are left out show where faces are, too.
        hidden_xyxy = self._pieces.see(frame, result)
        try:
            self._waiting.put_nowait((frame, result, hidden_xyxy))
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        retry_at_s = float("-inf")
        while (item := self._waiting.get()) is not None:
            if time.monotonic() >= retry_at_s and not self._record(*item):
                retry_at_s = time.monotonic() + self._retry_s
        try:
            self._pieces.finish_piece()
        except StorageError as error:
            self._outage.begin(str(error))

    def _record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> bool:
        if self._outage.active and self._pieces.free_bytes() < self._resume_bytes:
            return False
        try:
            self._pieces.record(frame, result, hidden_xyxy)
        except StorageError as error:
            self._outage.begin(str(error))
            with suppress(EdgekitError):
                self._pieces.finish_piece()
            return False
        self._outage.end("")
        return True
