"""`--event-clips`: a video of each event, which begins before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option, parse_seconds

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext
    from edgekit.device.sinks.outputs import OutputOptions
    from edgekit.device.sources.settings import EncodedPacket, EncodedVideo


@dataclass(frozen=True, kw_only=True)
class ClipOptions(SinkOptions):
    """Options of the videos of events."""

    title = "Events"

    event_clips: Path | None = option(
        "--event-clips",
        "Save an MP4 video of each event, which is a new label of a face or image. The video begins before the event "
        "and ends after it.",
        metavar="DIR",
        main=True,
    )
    clip_before: float = option(
        "--clip-before",
        "How long before its event a clip begins, such as 10s; at most 40s.",
        default=5.0,
        metavar="TIME",
        parse=parse_seconds,
        most=40,
        default_text="5s",
        needs="--event-clips",
    )
    clip_after: float = option(
        "--clip-after",
        "How long after its latest event a clip ends; at most 4min.",
        default=5.0,
        metavar="TIME",
        parse=parse_seconds,
        most=240,
        default_text="5s",
        needs="--event-clips",
    )
    clip_boxes: bool = option(
        "--clip-boxes",
        "Draw boxes and labels into the clips. The processor then encodes them, not the camera's encoder.",
        default=False,
        needs="--event-clips",
    )

    def folders(self) -> list[Path]:
        """Return the folder of the clips, whose oldest ones are deleted."""
        return [] if self.event_clips is None else [self.event_clips]

    def tap(self, rules: OutputOptions, recorder: EncodedVideo | None) -> PacketTap | None:
        """Return what receives the camera's own video, before the camera is opened; None if the clips cannot use it.

        `recorder` receives the video, too.
        """
        # Boxes and blur are drawn into the frames, which are then encoded again.
        if self.event_clips is None or self.clip_boxes or rules.blur_faces:
            return None
        return PacketTap(recorder)

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink.

        Raises:
            InputError: The folder is a file, or PyAV is missing.
        """
        if self.event_clips is None:
            return None
        from edgekit.device.sinks.clip_writer import ClipWriter

        # For the sink of events, which passes events to it, and for the web page, which shows its folder.
        run.links.clips = ClipWriter(self, self.event_clips, run)
        return run.links.clips


class PacketTap:
    """Passes the video of a camera's encoder to a sink that is opened after the camera, and to a recorder.

    Implements `sources.settings.EncodedVideo`.

    Attributes:
        size_wh: Size of the video that the source encodes now; None: it encodes none.
        receiver: Called with each packet, and with None at the end of the video, by the encoder's thread.
    """

    def __init__(self, recorder: EncodedVideo | None) -> None:
        self.size_wh: tuple[int, int] | None = None
        self.receiver: Callable[[EncodedPacket | None], object] | None = None
        self._recorder = recorder

    @property
    def required(self) -> bool:
        """Whether a source without an encoder is refused."""
        return self._recorder is not None

    def start(self, size_wh: tuple[int, int]) -> None:
        """Begin a video of images of this size. Raises as `EncodedVideo.start`."""
        if self._recorder is not None:
            self._recorder.start(size_wh)
        self.size_wh = size_wh

    def put(self, packet: EncodedPacket) -> None:
        """Pass on the next packet."""
        if self._recorder is not None:
            self._recorder.put(packet)
        if self.receiver is not None:
            self.receiver(packet)

    def stop(self) -> None:
        """End the video; another `start` may follow."""
        self.size_wh = None  # no encoder delivers a video now
        if self._recorder is not None:
            self._recorder.stop()
        if self.receiver is not None:
            self.receiver(None)  # the end of the video
