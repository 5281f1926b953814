"""JPEG images of the frames of events and of commands, in a folder whose oldest images are deleted."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edgekit.device.annotate import Shot, Xyxy
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import PICTURES
from edgekit.device.sinks.picture_folder import PictureFolder
from edgekit.device.sinks.writer import Each, Writer, WriterRules

if TYPE_CHECKING:
    from edgekit.device.sinks.events import Event

_MAX_SIDE_PX = 1280
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]
# Few frames wait, because they are large.
_MOST_FRAMES = 4
_MOST_FILES = 10_000
# How long a receiver waits for the image of its event.
_WAIT_S = 2.0
_POLL_S = 0.02
# Shortest time between two images by command, however many commands arrive.
_COMMAND_PERIOD_S = 1.0
# Only files with such a name are ever deleted: time, label, id of run and image.
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[\w-]*-[0-9a-f]+-\d+\.jpg", re.ASCII)


class SnapshotWriter(Writer[Shot]):
    """Writes the frames of events, and the next frame after a request, at most one per second.

    Attributes:
        latest: Name of the latest image that was requested; None before the first.
    """

    def __init__(self, folder: Path, run: RunContext) -> None:
        """Prepare to write to `folder`; other files in it are left alone.

        Raises:
            InputError: `folder` is a file.
        """
        most_bytes = run.rules.pictures_max_bytes
        self._pictures = PictureFolder(folder, ".jpg", most_files=_MOST_FILES, most_bytes=most_bytes, deletable=_NAME)
        self._folder = folder
        self._blur = run.blur()
        self._hidden_xyxy: Sequence[Xyxy] = ()  # the boxes to blur in the latest frame
        self.latest: str | None = None
        self._is_requested = False
        self._last_served_s = float("-inf")  # when a requested frame was last saved
        self._run_id = secrets.token_hex(4)
        self._count = 0  # requested images of this run, for their names
        rules = WriterRules(
            what=f"saving snapshots to '{folder}'",
            most=_MOST_FRAMES,
            slow="encoder or disk too slow",
            reserve=run.reserve(folder, PICTURES),
        )
        account = run.account("event snapshots")
        super().__init__(Each(self._write_shot), rules, account, run.shutdown, run.notify, threaded=run.source.live)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Keep the boxes to blur, and save the frame if one was requested."""
        self.check()
        self._hidden_xyxy = self._blur(frame, result)
        if self._is_requested and time.monotonic() - self._last_served_s >= _COMMAND_PERIOD_S:
            self._is_requested, self._last_served_s = False, time.monotonic()
            self._count += 1
            image_id = f"{self._run_id}-{self._count}"
            name = picture_name(frame.wall_s, "snapshot", image_id, result.clock_synchronised)
            if self._save(name, frame, result):  # False: too many frames wait
                self.latest = name

    def take(self, event: Event, frame: Frame, result: FrameResult) -> Event:
        """Save the frame of an event and return the event with the name of its image; without one, if it is busy."""
        name = picture_name(event.wall_s, event.label, event.event_id, event.clock_synchronised)
        return replace(event, snapshot=name) if self._save(name, frame, result) else event

    def request(self) -> None:
        """Save the next frame; may be called from any thread."""
        self._is_requested = True

    def jpeg(self, name: str) -> bytes | None:
        """Return an image by its name, after waiting for it for up to two seconds; None if it is not there."""
        end_s = time.monotonic() + _WAIT_S
        # The thread may not have written the image yet. If no frame waits and the file is missing, there is nothing to
        # wait for: the image was dropped or deleted.
        while self.account.waiting and not (self._folder / name).exists() and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def _save(self, name: str, frame: Frame, result: FrameResult) -> bool:
        return self.put(Shot(frame, result, self._hidden_xyxy, name))

    def _write_shot(self, shot: Shot) -> None:
        drawn = at_most(shot.drawn(), _MAX_SIDE_PX)
        self._pictures.store(shot.name, cv2.imencode(".jpg", drawn, _JPEG_QUALITY)[1].tobytes())


def picture_name(
    wall_s: float, label: str, image_id: str, clock_synchronised: bool, suffix: str = ".jpg", zone: str | None = None
) -> str:
    """Return the file name of an image or clip: its time, a label, and an id RUN-NUMBER that is unique across runs.

    A zone follows its label as "@door". The label of an image whose time may be wrong has the prefix "unsynchronised-".
    """
    taken = datetime.fromtimestamp(wall_s, UTC)
    label = ("" if clock_synchronised else "unsynchronised-") + re.sub(r"[^A-Za-z0-9_-]", "_", label)[:40]
    place = f"@{zone[:40]}" if zone else ""
    return f"{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03}Z-{label}{place}-{image_id}{suffix}"
