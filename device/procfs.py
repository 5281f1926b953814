"""Memory, threads and open files of a process, from /proc."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


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
