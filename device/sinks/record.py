"""`--record`: the H.264 video that a camera's encoder produces. Nothing is encoded or drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import OutputContext, RunContext
    from edgekit.device.sinks.file_series import FileSeries
    from edgekit.device.sinks.mp4 import PacketFile
    from edgekit.device.sinks.writer import Writer
    from edgekit.device.sources.settings import EncodedPacket

# A few seconds of video, for a disk that stalls.
_MOST_PACKETS = 128
_SLOW = "disk too slow"


@dataclass(frozen=True, kw_only=True)
class RecordOptions(SinkOptions):
    """Options of the camera's own video."""

    title = "Results"

    record: Path | None = option(
        "--record",
        "Record the video of a Pi's camera without boxes and labels. Boards up to the Pi 4 encode it in hardware.",
        metavar="MP4",
        excludes=("--source", "--blur-faces"),
        main=True,
    )

    def files(self) -> list[Path]:
        """Return the file."""
        return [] if self.record is None else [self.record]

    def recorder(self, outputs: OutputContext) -> H264Recorder | None:
        """Return the recorder, for the settings of the camera and for `RunContext.recorder`; None without --record.

        Raises:
            InputError: The name does not end in .mp4.
        """
        return None if self.record is None else H264Recorder(self.record, outputs)

    def open(self, run: RunContext) -> Sink | None:
        """Return the recorder that the camera uses already."""
        return run.recorder


class H264Recorder(Sink):
    """Writes packets in a thread. Implements `sources.settings.EncodedVideo` for the camera.

    As a sink, it ends the recording with the run. Every packet is counted as written or dropped.

    Attributes:
        required: True: a source without an encoder is refused.
    """

    required = True

    def __init__(self, target: Path, outputs: OutputContext) -> None:
        """Prepare to write the .mp4 file `target`.

        Raises:
            InputError: The name does not end in .mp4.
        """
        from edgekit.device.sinks.disk_reserve import VIDEO
        from edgekit.device.sinks.file_series import FileSeries, require_suffix
        from edgekit.device.sinks.writer import Writer, WriterRules

        require_suffix(target, ".mp4", "recording")
        rules = WriterRules(
            what=f"recording to '{target}'",
            most=_MOST_PACKETS,
            slow=_SLOW,
            reserve=outputs.reserve(target, VIDEO),
        )
        # A video can begin with a key frame only.
        files: FileSeries[EncodedPacket] = FileSeries(
            target, outputs.rules.rotation, self._open_file, outputs.say, begins=lambda packet: packet.is_key
        )
        # None ends a file, see `stop`.
        self._writer: Writer[EncodedPacket | None] = Writer(
            _StoppableSeries(files), rules, outputs.account("record"), outputs.shutdown, outputs.notify, threaded=True
        )
        self._size_wh = (0, 0)
        # After a packet was dropped, the following ones up to the next key frame are dropped, too: they depend on it.
        self._waits_for_key_frame = False

    def __exit__(self, *exception: object) -> None:
        """Finish the video; the camera may still be open, but its further packets are ignored."""
        self._writer.__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Raise the exception of the recording's thread, if there was one; the camera delivers the video."""
        self._writer.write(frame, result)

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size; the first key frame begins a file.

        Raises:
            InputError: PyAV is missing.
        """
        from edgekit.device.sinks.mp4 import require_pyav

        require_pyav()
        self._size_wh = size_wh
        # No wait here: the file series drops packets before its first key frame by itself.
        self._waits_for_key_frame = False

    def put(self, packet: EncodedPacket) -> None:
        """Queue a packet. If too many wait, drop this packet and all following ones up to the next key frame."""
        if self._waits_for_key_frame and not packet.is_key:
            self._writer.lose(_SLOW)
        else:
            self._waits_for_key_frame = not self._writer.put(packet)

    def stop(self) -> None:
        """Finish the current file; another `start` may follow."""
        self._writer.put(None, count=0)

    def _open_file(self, path: Path, packet: EncodedPacket) -> PacketFile:
        from edgekit.device.sinks.mp4 import PacketFile

        del packet
        return PacketFile(path, self._size_wh)


class _StoppableSeries:
    """A `FileSeries` of packets, in which None ends a file."""

    def __init__(self, files: FileSeries[EncodedPacket]) -> None:
        self._files = files

    def write(self, items: Sequence[EncodedPacket | None]) -> int:
        """Append the only packet; return the number of items that this makes safe, as `Target.write`."""
        (packet,) = items
        if packet is None:
            return self._files.close() + 1  # the packets of the file, and None
        return self._files.write([packet])

    def close(self) -> int:
        """Complete the file."""
        return self._files.close()
