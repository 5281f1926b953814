"""Videos of events: a ring of coded images in memory, from which a file begins before its event."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2

from edgekit.device.annotate import Shot, Xyxy, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.imaging import at_most
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import VIDEO
from edgekit.device.sinks.mp4 import H264Encoder, PacketFile, require_pyav
from edgekit.device.sinks.picture_folder import FOLDER_FULL, PictureFolder
from edgekit.device.sinks.saved_frames import even_size, fitted
from edgekit.device.sinks.snapshots import picture_name
from edgekit.device.sinks.writer import LostError, Target, Writer, WriterRules
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import StorageError
from edgekit.files import is_at, write_atomic
from edgekit.preprocess import ImageU8

if TYPE_CHECKING:
    from edgekit.device.sinks.clips import ClipOptions
    from edgekit.device.sinks.events import Event

# Only files with such a name are ever deleted: time, label, zone if there are zones, id of run and event. Each clip has
# a picture beside it.
CLIP_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[\w-]*(@[\w-]+)?-[0-9a-f]+-\d+\.mp4", re.ASCII)
POSTER_SUFFIX = ".jpg"
_POSTER_SIDE_PX = 640
_MOST_FILES = 10_000
# Events that follow each other extend a clip up to this length; then another one begins.
_MOST_CLIP_S = 300.0
# An event is known later than its image: the ring is longer by the latency of a slow board.
_LATENCY_S = 2.0
_MOST_RING_BYTES = 32 << 20
# After a longer gap, as in an outage of the camera or the disk, a clip does not show what was before.
_MOST_GAP_S = 5.0
# A few seconds of a camera's video, for a disk that stalls; few images, because they are large.
_MOST_PACKETS, _MOST_FRAMES = 128, 3
# Events that wait for a disk that hangs; each has a frame.
_MOST_EVENTS = 64
_ASSUMED_FPS = 15.0
# What a file has beside its images, at most: for the file, and for each image.
_BYTES_PER_FILE, _BYTES_PER_IMAGE = 4096, 64
_SLOW = "encoder or disk too slow"


@dataclass(frozen=True)
class Coded:
    """A packet of the camera's video, and when it arrived; None: the video ends. `number` counts all of them."""

    packet: EncodedPacket | None
    time_s: float
    number: int


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame to encode."""

    shot: Shot
    time_s: float


@dataclass(frozen=True, eq=False)
class Wanted:
    """An event: the name of its clip, its time and frame, and when the clip ends."""

    name: str
    shot: Shot
    time_s: float
    until_s: float


Item: TypeAlias = Coded | Shown | Wanted


class PacketRing:
    """The coded images of the latest seconds, in groups that begin with a key frame.

    Its size is bounded in time and in bytes: it has the groups that are needed to show the latest `length_s` seconds,
    but no more than 32 MiB.
    """

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        # The oldest group first. Each packet has its time; the first one of a group is a key frame.
        self._groups: deque[list[tuple[EncodedPacket, float]]] = deque()
        self._bytes = 0
        self._latest_s = float("-inf")

    def add(self, packet: EncodedPacket, time_s: float) -> None:
        """Append the next packet. At the beginning and after a long gap, packets before a key frame are ignored."""
        if time_s - self._latest_s > _MOST_GAP_S:
            self.clear()
        self._latest_s = time_s
        if packet.is_key:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append((packet, time_s))
        self._bytes += len(packet.data)
        while len(self._groups) > 1:
            # The oldest group is needed until the second one begins early enough.
            _, second_begins_s = self._groups[1][0]
            if second_begins_s > time_s - self._length_s and self._bytes <= _MOST_RING_BYTES:
                break
            oldest = self._groups.popleft()
            self._bytes -= sum(len(packet.data) for packet, _ in oldest)

    def since(self, time_s: float) -> list[EncodedPacket]:
        """Return the packets from the latest key frame that is not later than `time_s`, or from the oldest one."""
        packets: list[EncodedPacket] = []
        for group in self._groups:
            _, begins_s = group[0]
            if begins_s <= time_s:
                packets.clear()  # this group begins early enough, so that the earlier ones are not needed
            packets += [packet for packet, _ in group]
        return packets

    def clear(self) -> None:
        """Forget all packets."""
        self._groups.clear()
        self._bytes = 0


class ClipWriter(Writer[Item]):
    """Keeps the latest seconds of video in memory, and writes those around each event.

    The video is the camera's own where its encoder delivers one. Otherwise the frames of the run are encoded.

    Attributes:
        folder: Where the clips are, `NAME.mp4` and `NAME.jpg`.
    """

    def __init__(self, options: ClipOptions, folder: Path, run: RunContext) -> None:
        """Prepare to write to `folder`; other files in it are left alone.

        Raises:
            InputError: `folder` is a file, or PyAV is missing.
        """
        require_pyav()
        source, tap = run.source, run.tap
        self.folder = folder
        self._options = options
        self._hide = run.blur()
        self._hidden_xyxy: Sequence[Xyxy] = ()  # the boxes to blur in the latest frame
        self._time_s = presentation_time_s(source)
        # Without a size, no encoder delivers the camera's video: the frames of the run are encoded.
        self._uses_camera = tap is not None and tap.size_wh is not None
        # Number of packets of the camera, also of those that are dropped later.
        self._numbers = 0
        # Name of the latest clip, the time of its first event, and when it ends.
        self._clip = ""
        self._begun_s = self._until_s = float("-inf")
        fps = source.fps or _ASSUMED_FPS
        most_bytes = run.rules.pictures_max_bytes
        clips = PictureFolder(
            folder, ".mp4", most_files=_MOST_FILES, most_bytes=most_bytes, deletable=CLIP_NAME, beside=POSTER_SUFFIX
        )
        size_wh = tap.size_wh if tap is not None else None
        files = ClipFiles(clips, options.clip_before, fps, size_wh, draws=options.clip_boxes)
        rules = WriterRules(
            what=f"saving clips to '{folder}'",
            most=_MOST_PACKETS if self._uses_camera else _MOST_FRAMES,
            slow=_SLOW,
            reserve=run.reserve(folder, VIDEO),
        )
        super().__init__(files, rules, run.account("event clips"), run.shutdown, run.notify, threaded=source.live)
        if tap is not None and self._uses_camera:
            tap.receiver = self._take_packet

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame to the video, unless the camera delivers it."""
        self.check()
        self._hidden_xyxy = self._hide(frame, result)
        if not self._uses_camera:
            self.put(Shown(self._shot(frame, result), self._time_s(frame)), count=0)

    def take(self, event: Event, frame: Frame, result: FrameResult) -> Event:
        """Write the clip of an event, or extend the one that is being written. Call it after `write` of the same frame.

        Returns the event with the name of the clip, which may be missing later, as on a full disk.
        """
        now_s = self._time_s(frame)
        until_s = now_s + self._options.clip_after
        has_ended = now_s > self._until_s
        would_be_too_long = until_s - self._begun_s > _MOST_CLIP_S
        if has_ended or would_be_too_long:
            # The limit is checked for new clips only: `_MOST_CLIP_S` bounds the events that extend a clip.
            if self.account.waiting >= _MOST_EVENTS:
                self.lose(_SLOW)
                return event
            self._begun_s = now_s
            self._clip = picture_name(
                event.wall_s, event.label, event.event_id, event.clock_synchronised, ".mp4", event.zone
            )
        self._until_s = until_s
        wanted = Wanted(self._clip, self._shot(frame, result), now_s, until_s)
        # Without weight, because frames that wait must not displace an event.
        is_accepted = self.put(wanted, weight=0)
        return replace(event, clip=self._clip) if is_accepted else event

    def _shot(self, frame: Frame, result: FrameResult) -> Shot:
        return Shot(frame, result, self._hidden_xyxy)

    def _take_packet(self, packet: EncodedPacket | None) -> None:
        self._numbers += 1
        self.put(Coded(packet, time.monotonic(), self._numbers), count=0)


class ClipFiles(Target[Item]):
    """Target of a `ClipWriter`: the ring, and the clip that is being written."""

    def __init__(
        self, clips: PictureFolder, before_s: float, fps: float, size_wh: tuple[int, int] | None, *, draws: bool
    ) -> None:
        self._clips = clips
        self._before_s = before_s
        self._fps = fps
        self._size_wh = size_wh
        self._draws = draws
        self._ring = PacketRing(before_s + _LATENCY_S)
        self._encoder: H264Encoder | None = None
        self._latest_number = 0  # of the camera's packets
        self._skips_to_key = False  # packets are missing: the next ones cannot be shown
        # The clip that is being written, and an upper bound of its size with its picture.
        self._file: PacketFile | None = None
        self._name = ""
        self._poster = b""
        self._size_bytes = 0
        self._until_s = float("-inf")
        # Number of items that are not reported as safe yet: all since the beginning of the clip that is being written.
        self._unsafe = 0
        # Those of them that belong to a clip which the current `write` has completed. They stay safe if the same
        # `write` fails to begin the next clip.
        self._complete = 0

    def write(self, items: Sequence[Item]) -> int:
        """Process the only item (the rules have no `every_s`), and return how many items are safe now.

        An item is safe when its clip is complete, or when it belongs to no clip. So none is safe while a clip is being
        written, and all are afterwards.
        """
        (item,) = items
        self._unsafe += 1
        self._complete = 0
        try:
            if isinstance(item, Wanted):
                self._begin_or_extend(item)
            elif isinstance(item, Coded):
                self._take_coded(item)
            else:
                for packet in self._encoded(item):
                    self._take(packet, item.time_s)
        except BaseException:
            # The first error is raised; `_end` often fails for the same reason.
            with suppress(StorageError):
                self._end()
            # The next `_all_safe` reports the items of a complete clip. The writer drops all others.
            self._unsafe = self._complete
            raise
        return 0 if self._file is not None else self._all_safe()

    def close(self) -> int:
        """Complete the clip; return the number of items that are safe now."""
        try:
            # The camera's own video has no encoder here.
            if self._file is not None and self._encoder is not None:
                self._append(self._encoder.flush())
                self._drop_encoder()
        finally:
            self._end()
        return self._all_safe()

    def _all_safe(self) -> int:
        """Return the number of items that were not reported as safe yet: all of them are safe now."""
        safe, self._unsafe = self._unsafe, 0
        return safe

    def _begin_or_extend(self, wanted: Wanted) -> None:
        """Let the clip of an event end later, or begin it."""
        if self._file is not None and self._name != wanted.name:
            self._end()
            self._complete = self._unsafe - 1  # all items but this event, which begins the next clip
        if self._file is None:
            self._begin(wanted)
        self._until_s = wanted.until_s

    def _begin(self, wanted: Wanted) -> None:
        """Write the picture of an event, and its clip so far; raises LostError if there can be no clip."""
        packets = self._ring.since(wanted.time_s - self._before_s)
        path = self._clips.folder / wanted.name
        if not packets or self._size_wh is None:
            raise LostError("no video yet")
        if path.exists():  # a later event of this clip, which was ended early for lack of room or by a fault
            raise LostError("the clip was cut off")
        _, poster = cv2.imencode(POSTER_SUFFIX, at_most(self._image(wanted.shot), _POSTER_SIDE_PX))
        self._name, self._poster = wanted.name, poster.tobytes()
        self._create(packets)

    def _create(self, packets: Sequence[EncodedPacket]) -> None:
        """Create the files of the clip; `packets` are its first ones."""
        assert self._size_wh is not None
        self._size_bytes = len(self._poster) + _BYTES_PER_FILE
        if not self._make_room(packets):
            raise LostError(FOLDER_FULL, f"a clip is larger than all clips in '{self._clips.folder}' may be")
        path = self._clips.folder / self._name
        write_atomic(path.with_suffix(POSTER_SUFFIX), self._poster)
        self._file = PacketFile(path, self._size_wh, self._fps)
        self._file.write(packets)

    def _append(self, packets: Sequence[EncodedPacket]) -> None:
        """Write packets to the clip, which ends if there is no room for them.

        If its file was deleted or moved, another one begins with the packets in memory.
        """
        assert self._file is not None
        if not is_at(self._clips.folder / self._name, self._file.fileno()):
            in_memory = self._ring.since(float("-inf"))  # with `packets`, which `_take` has added
            if in_memory:  # after a gap the ring is empty, and the next key frame begins the other file
                file, self._file = self._file, None
                file.close()
                self._create(in_memory)
        elif self._make_room(packets):
            self._file.write(packets)
        else:
            self._end()

    def _make_room(self, packets: Sequence[EncodedPacket]) -> bool:
        """Add packets to the size of the clip, and delete the oldest clips until it fits in; return whether it does."""
        self._size_bytes += sum(len(packet.data) + _BYTES_PER_IMAGE for packet in packets)
        return self._clips.make_room(self._name, self._size_bytes)

    def _end(self) -> None:
        """Complete the clip, if one is being written."""
        file, self._file = self._file, None
        if file is None:
            return
        path = self._clips.folder / self._name
        try:
            file.close()
        finally:
            if path.exists():
                self._clips.count(self._name)
            else:  # the disk was full before the first second was written
                path.with_suffix(POSTER_SUFFIX).unlink(missing_ok=True)

    def _take_coded(self, coded: Coded) -> None:
        """Take a packet of the camera, or the end of its video."""
        is_next = coded.number == self._latest_number + 1  # False: the writer has dropped packets before this one
        self._latest_number = coded.number
        if coded.packet is None:
            self._end()
            self._ring.clear()
            return
        # What follows missing packets cannot be shown before the next key frame.
        if coded.packet.is_key:
            self._skips_to_key = False
        elif not is_next:
            self._skips_to_key = True
        if not self._skips_to_key:
            self._take(coded.packet, coded.time_s)

    def _take(self, packet: EncodedPacket, time_s: float) -> None:
        """Add a packet to the ring, and to the clip that is being written; the clip may end before it."""
        self._ring.add(packet, time_s)
        if self._file is not None and time_s > self._until_s:
            self._end()
        if self._file is not None:
            self._append([packet])

    def _encoded(self, shown: Shown) -> list[EncodedPacket]:
        """Return the packets of a frame of the run. The first frame determines the size of the video."""
        if self._encoder is None:
            self._size_wh = even_size(shown.shot.frame.size_wh)
            self._encoder = H264Encoder(self._size_wh, self._fps)
        assert self._size_wh is not None
        try:
            return self._encoder.encode(fitted(self._image(shown.shot), self._size_wh), shown.time_s)
        except StorageError:
            self._drop_encoder()  # the next frame opens another one
            raise

    def _drop_encoder(self) -> None:
        """Begin with another encoder, whose times start again, and so with an empty ring."""
        self._encoder = None
        self._ring.clear()

    def _image(self, shot: Shot) -> ImageU8:
        """Return the image of a frame with boxes and labels, or without them; faces may be hidden."""
        return shot.drawn() if self._draws else hide_boxes(shot.frame.image_bgr, shot.hidden_xyxy)
