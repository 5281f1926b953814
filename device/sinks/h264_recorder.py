"""Recorder of the H.264 video that a camera's encoder produces, as fragmented MP4 files.

The packets are muxed as they are: nothing is encoded or drawn here. A file is playable up to its last fragment while
it grows and after a power cut.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgekit.device.sinks.mp4 import PacketFile, missing_pyav
from edgekit.device.sinks.rotation import RESUME_BYTES, RETRY_S, Outage, Rotation, free_bytes, shift
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError, StorageError

_SUFFIX = ".mp4"
# A few seconds of video, for a disk that stalls.
_MAX_QUEUED_PACKETS = 128
_CLOSE_TIMEOUT_S = 1.5


class H264Recorder:
    """Writes packets in a thread, so that a slow or failing disk neither delays the camera nor ends the run.

    `target` is the latest file, older ones are numbered. Implements `sources.settings.EncodedVideo`.
    """

    def __init__(
        self, target: Path, rotation: Rotation, notify: Callable[[str], None], retry_s: float = RETRY_S
    ) -> None:
        """Prepare to write `target`; `notify` receives one line for each outage of the disk and its end.

        Raises:
            InputError: `target` is not the name of an .mp4 file.
        """
        if target.suffix.lower() != _SUFFIX or target.is_dir():
            raise InputError(f"recording '{target}': name a file that ends in {_SUFFIX}")
        self._target = target
        self._rotation = rotation
        self._what = f"recording to '{target}'"
        self._notify = notify
        self._outage = Outage(self._what, notify)
        self._retry_s = retry_s
        self._retry_at_s = float("-inf")
        self._queue: queue.Queue[EncodedPacket | None] = queue.Queue(_MAX_QUEUED_PACKETS)
        self._thread: threading.Thread | None = None
        self._size_wh = (0, 0)
        self._file: PacketFile | None = None
        self._started_s = 0.0
        self._files = 0
        self._skips_to_key = False
        self.dropped = 0
        self._reported = 0

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size; the first key frame begins a file.

        Raises:
            InputError: PyAV is missing.
        """
        if reason := missing_pyav():
            raise InputError(f"recording needs PyAV ({reason}): run sudo apt install python3-av")
        self._size_wh, self._skips_to_key = size_wh, False
        self._thread = threading.Thread(target=self._work, name="recording", daemon=True)
        self._thread.start()

    def put(self, packet: EncodedPacket) -> None:
        """Queue a packet. If the queue is full, drop this packet and all following ones up to the next key frame."""
        self._skips_to_key = self._skips_to_key and not packet.is_key
        if not self._skips_to_key:
            try:
                self._queue.put_nowait(packet)
            except queue.Full:
                self._skips_to_key = True
        self.dropped += self._skips_to_key

    def stop(self) -> None:
        """Finish the current file; another `start` may follow."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
        thread.join(_CLOSE_TIMEOUT_S)
        if dropped := self.dropped - self._reported:
            self._reported = self.dropped
            self._notify(f"{self._what}: dropped {dropped} frames because the disk was too slow")

    def _work(self) -> None:
        while (packet := self._queue.get()) is not None:
            try:
                self._write(packet)
            except StorageError as error:
                self._fail(error)
        try:
            self._finish()
        except StorageError as error:
            self._fail(error)

    def _write(self, packet: EncodedPacket) -> None:
        if packet.is_key and self._file is not None and self._is_due(self._file):
            self._finish()
        if self._file is None:
            if not packet.is_key or not self._may_begin():
                return
            self._file = self._begin()
        self._file.put(packet)
        self._outage.end("")

    def _may_begin(self) -> bool:
        if time.monotonic() < self._retry_at_s:
            return False
        return not self._outage.active or free_bytes(self._target) >= RESUME_BYTES

    def _begin(self) -> PacketFile:
        try:
            if self._rotation.active:
                shift(self._target, self._rotation.keep)
            elif self._files:
                # The camera or the disk failed in between: keep what was recorded before.
                shift(self._target, None)
        except OSError as error:
            raise StorageError(f"video '{self._target}' cannot be named: {error.strerror or error}") from error
        self._files += 1
        self._started_s = time.monotonic()
        return PacketFile(self._target, self._size_wh)

    def _is_due(self, file: PacketFile) -> bool:
        return self._rotation.is_due(file.size_bytes(), time.monotonic() - self._started_s)

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _fail(self, error: StorageError) -> None:
        self._outage.begin(str(error))
        self._retry_at_s = time.monotonic() + self._retry_s
        with suppress(StorageError):  # the file is playable without its end
            self._finish()
