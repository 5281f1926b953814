"""The table of faults of disks and folders, and the disks for these faults.

Every sink that writes files is tested with every row (`sinks.py`, `tests/device/sinks/test_faults.py`). A new sink is a
new row in `sinks.py`; a new fault is a new row here.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.waiting import wait_until

# Constants of Linux, see renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Disk:
    """A disk with the folder `out`, to which a sink writes, and the folder `aside` for files that a fault removes."""

    def __init__(self, root: Path, control: Path | None = None) -> None:
        self.out = root / "out"
        self.aside = root / "aside"
        for folder in (self.out, self.aside):
            folder.mkdir(parents=True)
        self._control = control
        self._numbers = itertools.count()

    @property
    def can_fail_within_writes(self) -> bool:
        """Whether a fault can begin between two parts of one write."""
        return self._control is not None

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders with files of the sink, including removed folders."""
        return (self.out, *sorted(self.aside.iterdir()))

    def fail(self, fault: str) -> None:
        """Make the operations of the disk fail or stall; "" ends the fault."""
        assert self._control is not None
        # Replaced in one step, so that the disk does not read a partial file.
        new = self._control.with_suffix(".new")
        new.write_text(fault)
        new.replace(self._control)

    def move_out(self) -> Path:
        """Move the folder `out` away and return its new place."""
        self.out.mkdir(exist_ok=True)  # the sink may not have created it again since the previous fault
        return self.out.rename(self.aside / str(next(self._numbers)))

    def replace_out(self) -> None:
        """Replace the folder `out` by a file, in one step, so that the sink cannot create the folder in between."""
        self.out.mkdir(exist_ok=True)
        place = self.aside / str(next(self._numbers))
        place.write_text("in the way")
        exchanged = ctypes.CDLL(None).renameat2(_AT_FDCWD, bytes(self.out), _AT_FDCWD, bytes(place), _RENAME_EXCHANGE)
        assert exchanged == 0

    def delete_out(self) -> None:
        """Delete the folder `out`; its files keep a second name in `aside`, so that a test can read them."""
        moved = self.move_out()
        self._keep([path for path in moved.rglob("*") if path.is_file()], moved)
        shutil.rmtree(moved)

    def delete_files(self) -> None:
        """Delete the files in `out`; they keep a second name in `aside`."""
        self._keep(self.files(), self.out)

    def _keep(self, files: list[Path], parent: Path) -> None:
        folder = self.aside / str(next(self._numbers))
        for path in files:
            copy = folder / path.relative_to(parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.hardlink_to(path)
            path.unlink()

    def files(self) -> list[Path]:
        """The files in `out` that are not hidden."""
        return [path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith(".")]


@dataclass(frozen=True)
class Fault:
    """A fault of a disk.

    Attributes:
        name: Name of the test's case.
        disk: Kind of disk that can have the fault.
        begin: Starts the fault.
        end: Ends the fault.
        is_outage: Whether nothing can be written until the fault ends.
        reason: Reason of the losses in the account.
    """

    name: str
    disk: Literal["tmpfs", "fuse"]
    begin: Callable[[Disk], object]
    end: Callable[[Disk], None] = lambda _: None
    is_outage: bool = True
    reason: str = ""

    @property
    def moves_files(self) -> bool:
        """Whether files get other names or are deleted."""
        return not self.is_outage or self.reason == "folder missing"


def _fill(disk: Disk) -> None:
    with (disk.aside.parent / "ballast").open("ab", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            pass


def _free(disk: Disk) -> None:
    (disk.aside.parent / "ballast").unlink(missing_ok=True)


def _restore_folder(disk: Disk) -> None:
    if disk.out.is_file():
        disk.out.unlink()


def _failing(name: str, error: str, reason: str) -> Fault:
    return Fault(name, "fuse", lambda disk: disk.fail(error), lambda disk: disk.fail(""), reason=reason)


FAULTS = (
    Fault("disk full", "tmpfs", _fill, _free, reason="disk full"),
    _failing("disk full for open files", "ENOSPC", "disk full"),
    _failing("read-only", "EROFS", "disk read-only"),
    _failing("input-output error", "EIO", "input/output error"),
    _failing("stalls", "stall", "disk too slow"),
    Fault("file deleted", "tmpfs", Disk.delete_files, is_outage=False),
    Fault("folder deleted", "tmpfs", Disk.delete_out, is_outage=False),
    Fault("folder moved", "tmpfs", Disk.move_out, is_outage=False),
    Fault("file in place of the folder", "tmpfs", Disk.replace_out, _restore_folder, reason="folder missing"),
)


@contextmanager
def tmpfs(folder: Path, size: str = "4m") -> Iterator[Path]:
    """Mount a small disk in memory, or skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk: mount says {mounted.stderr.strip()}")
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
