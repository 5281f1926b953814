"""Protection of the disk: outputs of a live run pause before it is full, and a run that writes much to it is reported.

Video pauses first, then pictures, then records.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame

# Reason of dropped items.
DISK_RESERVE = "disk reserve"
# Shares of the reserve below which an output pauses. Events are written until the disk is full.
VIDEO, PICTURES, RECORDS = 1.0, 0.5, 0.25

# The default reserve: a share of the disk, and at most.
_SHARE_OF_DISK, _MAX_BYTES = 0.05, 256 << 20
# An output resumes with this factor more, so that it does not pause again at once.
_RESUME_FACTOR = 1.25
_CHECK_EVERY_S = 1.0


class DiskReserve:
    """The free space below which one output pauses."""

    def __init__(self, place: Path, share: float, size_bytes: int | None) -> None:
        """Watch the disk of `place`, a file or folder that may be missing.

        Args:
            place: Where the output writes.
            share: The share of the reserve below which this output pauses: `VIDEO`, `PICTURES` or `RECORDS`.
            size_bytes: The reserve; None: 5 % of the disk, at most 256 MiB.
        """
        self._place = place
        self._share_of_reserve = share
        self._size_bytes = size_bytes
        self._check_at_s = float("-inf")  # the time of the next check
        self._shortage = ""  # why the output pauses; "": it does not

    def shortage(self) -> str:
        """Return why the output must pause, "" if it need not; the disk is checked once per second."""
        if time.monotonic() >= self._check_at_s:
            self._check_at_s = time.monotonic() + _CHECK_EVERY_S
            self._check()
        return self._shortage

    def _check(self) -> None:
        """Compare the free space with the reserve; between the limits for pausing and resuming, nothing changes."""
        try:
            disk = shutil.disk_usage(existing_place(self._place))
        except OSError:  # writing reports the reason
            return
        default_bytes = min(_SHARE_OF_DISK * disk.total, _MAX_BYTES)
        reserve_bytes = default_bytes if self._size_bytes is None else self._size_bytes
        limit_bytes = self._share_of_reserve * reserve_bytes
        if disk.free < limit_bytes:
            self._shortage = f"the disk of '{self._place}' has less than {limit_bytes / 1e6:.1f} MB of free space"
        elif disk.free >= _RESUME_FACTOR * limit_bytes:
            self._shortage = ""


def existing_place(path: Path) -> Path:
    """Return `path`, or the nearest of its folders that exists.

    Raises:
        OSError: The disk fails.
    """
    whole = path.absolute()
    return next(place for place in (whole, *whole.parents) if place.exists())  # at the latest "/"


def free_bytes(path: Path) -> int:
    """Return the free space for a file or folder at `path`, which may be missing; 0 if unknown."""
    try:
        return shutil.disk_usage(existing_place(path)).free
    except OSError:
        return 0


MAX_MB_PER_DAY = 200
MEASURED_S = 60.0
_DAY_S = 86_400


class DailyWrites(Sink):
    """Measures, once per run, the bytes that this process writes to disks, of all outputs together.

    The kernel counts them: files in memory (tmpfs), sockets and pipes are not included.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        """`notify` receives one line if the rate exceeds 200 MB per day."""
        self._notify = notify
        self._begun_s: float | None = None
        self._begun_bytes = 0
        self._is_done = False

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Measure from the first frame; after one minute, report a rate that is too high."""
        del frame, result
        now_s = time.monotonic()
        if self._begun_s is None:
            self._begun_s, self._begun_bytes = now_s, _written_bytes()
        elif not self._is_done and now_s - self._begun_s >= MEASURED_S:
            self._is_done = True
            mb_per_day = (_written_bytes() - self._begun_bytes) / 1e6 * _DAY_S / (now_s - self._begun_s)
            if mb_per_day > MAX_MB_PER_DAY:
                self._notify(
                    f"this run writes {mb_per_day:.0f} MB per day to the disk, and more than {MAX_MB_PER_DAY} MB wear "
                    "out an SD card: record less, for example with --records changes or without video, or "
                    "write to another disk"
                )


def _written_bytes() -> int:
    """Return the bytes that this process has had the kernel write to disks; 0 if the kernel does not count them."""
    with suppress(OSError):
        if found := re.search(r"^write_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE):
            return int(found[1])
    return 0
