"""Disk reserve: outputs of a live run pause before the disk is full. Video first, then pictures, then records."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

# Reason of dropped items.
DISK_RESERVE = "disk reserve"
# Shares of the reserve below which an output pauses. Events are written until the disk is full.
VIDEO, PICTURES, RECORDS = 1.0, 0.5, 0.25

# The default reserve: a share of the disk, and at most.
_SHARE, _MAX_BYTES = 0.05, 256 << 20
# An output resumes with this factor more, so that it does not pause again at once.
_RESUME_FACTOR = 1.25
_CHECK_EVERY_S = 1.0


class DiskReserve:
    """The free space below which one output pauses."""

    def __init__(self, place: Path, share: float, size_bytes: int | None) -> None:
        """Watch the disk of `place`, a file or folder that may be missing.

        Args:
            place: Where the output writes.
            share: `VIDEO`, `PICTURES` or `RECORDS`.
            size_bytes: The reserve; None: 5 % of the disk, at most 256 MiB.
        """
        self._place = place
        self._share = share
        self._size_bytes = size_bytes
        self._check_at_s = float("-inf")
        self._shortage = ""

    def shortage(self) -> str:
        """Return why the output must pause, "" if it need not; the disk is checked once per second."""
        if time.monotonic() >= self._check_at_s:
            self._check_at_s = time.monotonic() + _CHECK_EVERY_S
            self._check()
        return self._shortage

    def _check(self) -> None:
        try:
            disk = shutil.disk_usage(existing_place(self._place))
        except OSError:  # writing reports the reason
            return
        reserve_bytes = min(_SHARE * disk.total, _MAX_BYTES) if self._size_bytes is None else self._size_bytes
        limit_bytes = self._share * reserve_bytes
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
    return next(place for place in (whole, *whole.parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Return the free space for a file or folder at `path`, which may be missing; 0 if unknown."""
    try:
        return shutil.disk_usage(existing_place(path)).free
    except OSError:
        return 0
