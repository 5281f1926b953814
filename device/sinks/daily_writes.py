"""Warning of a run that writes much to its disk: an SD card wears out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink

MAX_MB_PER_DAY = 200
_MEASURED_S = 60.0
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
        elif not self._is_done and now_s - self._begun_s >= _MEASURED_S:
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
