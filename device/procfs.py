"""Memory, threads, open files and start time of a process, from /proc."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Index in /proc/PID/stat after the process name, which is in brackets and may contain spaces; 0 is the state (proc(5)).
_STAT_START_TICKS = 19
_ZOMBIE = "Z"


@dataclass(frozen=True)
class ProcessUse:
    """Resources of a process: current and peak memory, threads and open files."""

    resident_mib: float
    peak_mib: float
    threads: int
    open_files: int


def read_process(pid: int | None = None) -> ProcessUse | None:
    """Return the resources of process `pid` (default: this one); None if it has ended or may not be read."""
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
    """Return the start time of a running process in clock ticks since boot, None if it has ended.

    Process ids are reused: only the id together with the start time identifies a process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == _ZOMBIE else int(fields[_STAT_START_TICKS])
