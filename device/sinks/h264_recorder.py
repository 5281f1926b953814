"""A camera's own video, encoded where the camera is: packets of H.264 become pieces of fragmented MP4.

Nothing is drawn in and nothing is encoded here. A piece can be played while it grows and after a power cut, up to its
last fragment.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from edgekit.device.sinks.rotation import Outage, Rotation, shift
from edgekit.errors import InputError

_SUFFIX = ".mp4"
# A fragment begins with a key frame; its description waits for the first one, which says what the pictures are like.
_MUXER = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
# Some seconds of packets wait for a disk that stalls.
_WAITING_PACKETS = 128
_RETRY_S = 10.0
_RESUME_BYTES = 32 << 20
_LEAVE_S = 1.5


@dataclass(frozen=True)
class Recording:
    """Where a camera's own video goes: `target` is the latest piece, older ones are numbered."""

    target: Path
    rotation: Rotation


@dataclass(frozen=True)
class Packet:
    """A coded picture (H.264, Annex B) and its time in microseconds since the encoder's start."""

    data: bytes
    is_key: bool
    time_us: int


class PieceWriter:
    """Takes packets at once and writes them by a thread; a disk that fails ends no run and holds up no camera."""

    def __init__(self, recording: Recording, notify: Callable[[str], None], retry_s: float = _RETRY_S) -> None:
        """Prepare to write; `notify` is told when the disk takes nothing, and when it does again.

        Raises:
            InputError: The name is none of a video, or PyAV is not there.
        """
        if recording.target.suffix.lower() != _SUFFIX or recording.target.is_dir():
            raise InputError(f"recording '{recording.target}': name a file that ends in {_SUFFIX}")
        try:
            import av
        except ImportError as error:
            raise InputError(f"--record needs PyAV ({error}): sudo apt install python3-av") from error
        self._open_container: Any = av.open
        self._new_packet: Any = av.Packet
        self._target = recording.target
        self._rotation = recording.rotation
        self._what = f"recording to '{recording.target}'"
        self.notify = notify
        self._outage = Outage(self._what, notify)
        self._retry_s = retry_s
        self._retry_at_s = float("-inf")
        self._waiting: queue.Queue[Packet | None] = queue.Queue(_WAITING_PACKETS)
        self._thread: threading.Thread | None = None
        self._size_wh = (0, 0)
        self._container: Any = None
        self._stream: Any = None
        self._started_s = 0.0
        self._began_us = 0
        self._pieces = 0
        self._lost = False
        self.dropped = 0

    def start(self, size_wh: tuple[int, int]) -> None:
        """Expect the packets of an encoder of pictures of this size; its first key frame begins a piece."""
        self._size_wh, self._lost = size_wh, False
        self._thread = threading.Thread(target=self._work, name="recording", daemon=True)
        self._thread.start()

    def put(self, packet: Packet) -> None:
        """Take a packet, or leave it out with all that need it when the disk is far behind."""
        self._lost = self._lost and not packet.is_key
        if not self._lost:
            try:
                self._waiting.put_nowait(packet)
            except queue.Full:
                self._lost = True
        self.dropped += self._lost

    def stop(self) -> None:
        """Finish the piece at hand; another `start` may follow."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_LEAVE_S)
        thread.join(_LEAVE_S)
        if self.dropped:
            self.notify(f"{self._what}: {self.dropped} pictures were left out, the disk was behind")

    def _work(self) -> None:
        while (packet := self._waiting.get()) is not None:
            try:
                self._write(packet)
            except Exception as error:  # PyAV has errors of its own, beside the system's
                self._fail(error)
        try:
            self._finish()
        except Exception as error:  # as above
            self._fail(error)

    def _write(self, packet: Packet) -> None:
        if packet.is_key and self._container is not None and self._is_due():
            self._finish()
        if self._container is None:
            if not packet.is_key or not self._may_begin():
                return
            self._begin()
            self._began_us = packet.time_us
        coded = self._new_packet(packet.data)
        coded.pts = coded.dts = packet.time_us - self._began_us
        coded.time_base = Fraction(1, 1_000_000)
        coded.is_keyframe = packet.is_key
        coded.stream = self._stream
        self._container.mux(coded)
        self._outage.end("")

    def _may_begin(self) -> bool:
        if time.monotonic() < self._retry_at_s:
            return False
        return not self._outage.active or shutil.disk_usage(self._target.parent).free >= _RESUME_BYTES

    def _begin(self) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if self._rotation.active:
            shift(self._target, self._rotation.keep)
        elif self._pieces:
            # Nobody asked for pieces: the camera or the disk was away in between, and nothing recorded may get lost.
            shift(self._target, None)
        self._container = self._open_container(str(self._target), "w", format="mp4", options=_MUXER)
        self._stream = self._container.add_stream("h264", rate=30)
        self._stream.width, self._stream.height = self._size_wh
        self._stream.pix_fmt = "yuv420p"
        # The encoder behind the stream is opened to describe it, and encodes nothing.
        self._stream.codec_context.thread_count = 1
        self._pieces += 1
        self._started_s = time.monotonic()

    def _is_due(self) -> bool:
        return self._rotation.is_due(self._target.stat().st_size, time.monotonic() - self._started_s)

    def _finish(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            container.close()

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        self._outage.begin(f"cannot write '{self._target}': {reason}")
        self._retry_at_s = time.monotonic() + self._retry_s
        with suppress(Exception):  # what there is can be played without an end
            self._finish()
