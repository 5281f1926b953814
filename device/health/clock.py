"""Whether the system clock is right: a Raspberry Pi without a clock battery starts with an old time until NTP."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# The folder of systemd-timesyncd while it runs, and the file that it writes there at its first synchronisation. Not
# the flag of the kernel: the call that reads it, adjtimex(2), is forbidden to services (`SystemCallFilter`).
_SERVICE = "run/systemd/timesync"
_SYNCHRONISED = "synchronized"
# 2025-01-01. The hardware clock of a Pi 5 without a battery starts in 1970.
_PLAUSIBLE_UNIX_S = 1_735_689_600


class Clock:
    """The synchronisation of the system clock; once true, it stays true."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root` is the folder of /run and /sys."""
        self._root = root
        self._synchronised = False

    def is_synchronised(self) -> bool:
        """Return False while systemd-timesyncd runs without the network time, and no hardware clock has the time.

        Without this service, as in a container or with chrony, the clock counts as synchronised.
        """
        self._synchronised = self._synchronised or not self._waits()
        return self._synchronised

    def _waits(self) -> bool:
        service = self._root / _SERVICE
        if not service.is_dir() or (service / _SYNCHRONISED).exists():
            return False
        return not any(_has_time(file) for file in self._root.glob("sys/class/rtc/rtc*/since_epoch"))


def _has_time(since_epoch: Path) -> bool:
    with suppress(OSError, ValueError):
        return int(since_epoch.read_text()) >= _PLAUSIBLE_UNIX_S
    return False
