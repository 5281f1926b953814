"""The table of faults of disks, and the disks for these faults.

Every sink that writes files is tested with every row (`sinks.py`, `tests/device/sinks/test_faults.py`). A new sink is a
new row in `sinks.py`; a new fault is a new row here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.waiting import wait_until


class Disk:
    """A disk with the folder `out`, to which a sink writes."""

    def __init__(self, root: Path, control: Path | None = None) -> None:
        self.out = root / "out"
        self.out.mkdir(parents=True)
        self._ballast = root / "ballast"
        self._control = control

    @property
    def can_fail_within_writes(self) -> bool:
        """Whether a fault can begin between two parts of one write."""
        return self._control is not None

    def fill(self) -> None:
        """Use all free space."""
        with self._ballast.open("ab", buffering=0) as stream, suppress(OSError):
            while stream.write(b"\0" * 4096):
                pass

    def free(self) -> None:
        """End `fill`."""
        self._ballast.unlink()

    def fail(self, fault: str) -> None:
        """Make the operations of the disk fail or stall; "" ends the fault."""
        # Replaced in one step, so that the disk does not read a partial file.
        new = self._control.with_suffix(".new")
        new.write_text(fault)
        new.replace(self._control)

    def files(self) -> list[Path]:
        """The files in `out` that are not hidden."""
        return [path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith(".")]


@dataclass(frozen=True)
class Fault:
    """A fault of a disk, during which nothing can be written.

    Attributes:
        name: Name of the test's case.
        disk: Kind of disk that can have the fault.
        begin: Starts the fault.
        end: Ends the fault.
        reason: Reason of the losses in the account.
    """

    name: str
    disk: Literal["tmpfs", "fuse"]
    begin: Callable[[Disk], None]
    end: Callable[[Disk], None]
    reason: str


def _failing(name: str, error: str, reason: str) -> Fault:
    return Fault(name, "fuse", lambda disk: disk.fail(error), lambda disk: disk.fail(""), reason)


FAULTS = (
    Fault("disk full", "tmpfs", Disk.fill, Disk.free, "disk full"),
    _failing("disk full for open files", "ENOSPC", "disk full"),
    _failing("read-only", "EROFS", "disk read-only"),
    _failing("input-output error", "EIO", "input/output error"),
    _failing("stalls", "stall", "disk too slow"),
)


@contextmanager
def tmpfs(folder: Path, size: str = "4m") -> Iterator[Path]:
    """Mount a small disk in memory, or skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk: mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def fuse_disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount a disk that fails on command; yield its folder and the file that holds the fault, or skip the test."""
    pytest.importorskip("mfusepy", reason="no FUSE here: pip install mfusepy", exc_type=ImportError)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("no FUSE here: it needs root and /dev/fuse")
    content, mount_point, control = folder / "content", folder / "disk", folder / "fault"
    content.mkdir(parents=True)
    mount_point.mkdir()
    control.write_text("")
    command = [sys.executable, "-m", "tests.faults.fuse_disk", content, mount_point, control]
    # The repository is the working directory, so that the module is found.
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        wait_until(mount_point.is_mount, alive=lambda: process.poll() is None, failure=lambda: "the FUSE disk ended")
        yield mount_point, control
    finally:
        control.write_text("")
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)
        process.kill()
        process.wait()
