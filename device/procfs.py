"""What a process uses and when it began, from /proc."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Fields of /proc/PID/stat after the name, which is in brackets and may hold spaces: state is the first (proc(5)).
_STAT_START_TICKS = 19
_ZOMBIE = "Z"


@dataclass(frozen=True)
class ProcessUse:
    """Memory (MiB: now, and the most it ever was), threads and open files of a process."""

    resident_mib: float
    peak_mib: float
    threads: int
    open_files: int


def read_process(pid: int | None = None) -> ProcessUse | None:
    """Return what process `pid` (default: this one) uses, None where it is gone or not to be looked into."""
    folder = Path("/proc", "self" if pid is None else str(pid))
    try:
        status = (folder / "status").read_text()
        open_files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - no Path is made of each
    except OSError:
        return None
    found = dict(re.findall(r"^(VmRSS|VmHWM|Threads):\s*(\d+)", status, re.MULTILINE))
    if len(found) < 3:  # a zombie has no memory
        return None
    resident_kib, peak_kib, threads = int(found["VmRSS"]), int(found["VmHWM"]), int(found["Threads"])
    return ProcessUse(resident_kib / 1024, peak_kib / 1024, threads, open_files)


def start_ticks(pid: int) -> int | None:
    """Return when a process that still runs began (clock ticks since boot), else None.

    Numbers are given out again: a process is the one that was meant only if number and beginning agree.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == _ZOMBIE else int(fields[_STAT_START_TICKS])
