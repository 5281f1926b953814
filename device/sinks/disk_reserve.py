"""Disk reserve: outputs of a live run pause before the disk is full. Video first, then images, then records."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from edgekit.device.sinks.rotation import Outage, existing_place

# Reason of dropped items.
DISK_RESERVE = "disk reserve"
# Of the disk, and at most: the default reserve.
_SHARE, _MAX_BYTES = 0.05, 256 << 20
# Shares of the reserve below which an output pauses. Events are written until the disk is full.
VIDEO, IMAGES, RECORDS = 1.0, 0.5, 0.25
# An output resumes with this factor more, so that it does not pause again at once.
_RESUME_FACTOR = 1.25
_CHECK_EVERY_S = 1.0


def never_low() -> bool:
    """Return False: an output without a disk reserve."""
    return False


class DiskReserve:
    """States when one output must pause; each pause and its end are reported once."""

    def __init__(
        self, target: Path, share: float, size_bytes: int | None, what: str, notify: Callable[[str], None]
    ) -> None:
        """Watch the disk of `target`.

        Args:
            target: The file or folder of the output, which may be missing.
            share: `VIDEO`, `IMAGES` or `RECORDS`.
            size_bytes: The reserve; None: 5 % of the disk, at most 256 MiB.
            what: The output in messages.
            notify: Receives the messages, possibly from another thread.
        """
        self._target = target
        self._share = share
        self._size_bytes = size_bytes
        self._outage = Outage(what, notify)
        self._check_at_s = float("-inf")

    def is_low(self) -> bool:
        """Return whether the output must pause; the disk is checked once per second.

        A disk that stalls delays the call: call it in the thread that writes.
        """
        if time.monotonic() >= self._check_at_s:
            self._check_at_s = time.monotonic() + _CHECK_EVERY_S
            self._check()
        return self._outage.active

    def _check(self) -> None:
        try:
            disk = shutil.disk_usage(existing_place(self._target))
        except OSError:  # writing reports the reason
            return
        reserve_bytes = min(_SHARE * disk.total, _MAX_BYTES) if self._size_bytes is None else self._size_bytes
        limit_bytes = self._share * reserve_bytes
        if disk.free < limit_bytes:
            self._outage.begin(f"the disk of '{self._target}' has less than {limit_bytes / 1e6:.1f} MB of free space")
        elif disk.free >= _RESUME_FACTOR * limit_bytes:
            self._outage.end("")
