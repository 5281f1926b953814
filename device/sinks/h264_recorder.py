"""Recorder of the H.264 video that a camera's encoder produces, as fragmented MP4 files.

The packets are muxed as they are: nothing is encoded or drawn here. A file is playable up to its last fragment while
it grows and after a power cut.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from edgekit.device.accounting import DISK_TOO_SLOW, NOT_WRITABLE, Account
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, never_low
from edgekit.device.sinks.mp4 import PacketFile, missing_pyav
from edgekit.device.sinks.rotation import RESUME_BYTES, RETRY_S, Outage, Rotation, free_bytes
from edgekit.device.sinks.worker import Worker
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError, StorageError

_SUFFIX = ".mp4"
# A few seconds of video, for a disk that stalls.
_MAX_QUEUED_PACKETS = 128
_CLOSE_TIMEOUT_S = 1.5


class H264Recorder(Sink):
    """Writes packets in a thread, so that a slow or failing disk neither delays the camera nor ends the run.

    `target` is the latest file, older ones are numbered. Implements `sources.settings.EncodedVideo` for the camera. As
    a sink, it ends the recording with the run. Every frame is counted in the account as written or dropped.
    """

    def __init__(
        self,
        target: Path,
        rotation: Rotation,
        notify: Callable[[str], None],
        retry_s: float = RETRY_S,
        resume_bytes: int = RESUME_BYTES,
        *,
        is_disk_low: Callable[[], bool] = never_low,
    ) -> None:
        """Prepare to write `target`; `notify` receives one line for each outage of the disk and its end.

        While `is_disk_low` returns true, nothing is recorded.

        Raises:
            InputError: `target` is not the name of an .mp4 file.
        """
        if target.suffix.lower() != _SUFFIX or target.is_dir():
            raise InputError(f"recording '{target}': name a file that ends in {_SUFFIX}")
        self._target = target
        self._rotation = rotation
        self._outage = Outage(f"recording to '{target}'", notify)
        self._retry_s = retry_s
        self._resume_bytes = resume_bytes
        self._is_disk_low = is_disk_low
        self._retry_at_s = float("-inf")
        self._queue: queue.SimpleQueue[EncodedPacket | None] = queue.SimpleQueue()
        self._thread: Worker | None = None
        self._is_recording = False
        self._is_closed = False
        self._file: PacketFile | None = None
        self._started_s = 0.0
        self._skips_to_key = False
        # Packets of the current file, and how many of them are counted as written.
        self._taken = 0
        self._counted = 0
        self.account = Account("record")
        self.accounts = (self.account,)

    def __exit__(self, *exception: object) -> None:
        """Finish the video; the camera may still be open, but its further packets are ignored.

        Raises:
            Exception: The thread of the recording has failed.
        """
        self._is_closed = True
        self.stop()
        # A disk that stalls is left behind with its packets.
        self.account.close(DISK_TOO_SLOW)
        self._check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Raise the exception of the recording's thread, if there was one; the camera delivers the video."""
        del frame, result
        self._check()

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size; the first key frame begins a file.

        Raises:
            InputError: PyAV is missing.
        """
        if reason := missing_pyav():
            raise InputError(f"recording needs PyAV ({reason}): run sudo apt install python3-av")
        if self._is_closed:
            return
        previous = self._thread if self._thread is not None and self._thread.is_alive() else None
        self._queue, self._skips_to_key = queue.SimpleQueue(), False
        self._thread = Worker(partial(self._work, self._queue, size_wh, previous), "recording")
        self._thread.start()
        self._is_recording = True

    def put(self, packet: EncodedPacket) -> None:
        """Queue a packet. If the queue is full, drop this packet and all following ones up to the next key frame."""
        if not self._is_recording:
            return
        self.account.produce()
        skips = self._skips_to_key and not packet.is_key
        self._skips_to_key = skips or self._queue.qsize() >= _MAX_QUEUED_PACKETS
        if self._skips_to_key:
            self.account.drop(DISK_TOO_SLOW)
        else:
            self._queue.put(packet)

    def stop(self) -> None:
        """Finish the current file; another `start` may follow. A disk that stalls is not waited for."""
        was_recording, self._is_recording = self._is_recording, False
        if was_recording and self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _check(self) -> None:
        if self._thread is not None:
            self._thread.check()

    def _work(
        self, packets: queue.SimpleQueue[EncodedPacket | None], size_wh: tuple[int, int], previous: Worker | None
    ) -> None:
        if previous is not None:
            # The disk stalls: the thread of the previous video still writes its file.
            previous.join()
        try:
            while (packet := packets.get()) is not None:
                try:
                    self._write(packet, size_wh)
                except StorageError as error:
                    self._fail(error)
        finally:
            self._finish_or_fail()

    def _write(self, packet: EncodedPacket, size_wh: tuple[int, int]) -> None:
        if self._is_disk_low():
            if self._file is not None:
                self._finish_or_fail()
            self.account.drop(DISK_RESERVE)
            return
        if packet.is_key and self._file is not None and self._is_due(self._file):
            self._finish_or_fail()
        if self._file is None and not (packet.is_key and self._may_begin()):
            self.account.drop(NOT_WRITABLE)
            return
        self._taken += 1
        self._file = self._file or self._begin(size_wh)
        self._file.put(packet)
        self._counted = self.account.write_up_to(self._file.stored, self._counted)
        self._outage.end("")

    def _may_begin(self) -> bool:
        if time.monotonic() < self._retry_at_s:
            return False
        return not self._outage.active or free_bytes(self._target) >= self._resume_bytes

    def _begin(self, size_wh: tuple[int, int]) -> PacketFile:
        self._rotation.make_room(self._target)
        self._started_s = time.monotonic()
        return PacketFile(self._target, size_wh)

    def _is_due(self, file: PacketFile) -> bool:
        return self._rotation.is_due(file.size_bytes(), time.monotonic() - self._started_s)

    def _finish_or_fail(self) -> None:
        try:
            self._finish()
        except StorageError as error:
            self._fail(error)

    def _finish(self) -> None:
        """Complete the current file; frames that are not in the file are dropped."""
        ended = self._file, self._taken, self._counted
        self._file, self._taken, self._counted = None, 0, 0
        self.account.finish(*ended)

    def _fail(self, error: StorageError) -> None:
        self._outage.begin(str(error))
        self._retry_at_s = time.monotonic() + self._retry_s
        with suppress(StorageError):  # the file is playable without its end
            self._finish()
