"""A disk in user space (FUSE) that fails on command: python -m tests.faults.fuse_disk CONTENT MOUNT_POINT CONTROL.

The file CONTROL contains the name of an error number (EIO, EROFS, ENOSPC) or "stall"; empty: no fault. Operations on
open files fail, too. A full or remounted tmpfs does not have these faults.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy

CONTENT, MOUNT_POINT, CONTROL = map(Path, sys.argv[1:])


def fault() -> str:
    return CONTROL.read_text().strip()


def fail_for(*names: str) -> None:
    """Raise the error in effect if it is one of `names`; wait while the disk stalls."""
    while (name := fault()) == "stall":
        time.sleep(0.01)
    if name in names:
        raise mfusepy.FuseOSError(getattr(errno, name))


class FaultyDisk(mfusepy.Operations):
    """Passes every operation on to the folder CONTENT."""

    use_ns = True

    def _path(self, path: str) -> Path:
        return Path(f"{CONTENT}{path}")

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.fstat(fh) if fh else self._path(path).lstat()
        names = ("st_mode", "st_ino", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks", "st_dev")
        times = {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}
        return {name: getattr(status, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        del fh
        return [".", "..", *(entry.name for entry in self._path(path).iterdir())]

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._path(path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_") and name != "f_fsid"}

    def open(self, path: str, flags: int) -> int:
        fail_for("EIO", *(["EROFS"] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []))
        # The kernel appends at the offset that it passes to `write`.
        return os.open(self._path(path), flags & ~os.O_APPEND)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        del fi
        fail_for("EIO", "EROFS", "ENOSPC")
        return os.open(self._path(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        del path
        fail_for("EIO")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        del path
        fail_for("EIO", "EROFS", "ENOSPC")
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        fail_for("EIO", "EROFS")
        os.truncate(fh if fh else self._path(path), length)

    def mkdir(self, path: str, mode: int) -> None:
        fail_for("EIO", "EROFS", "ENOSPC")
        self._path(path).mkdir(mode)

    def unlink(self, path: str) -> None:
        fail_for("EIO", "EROFS")
        self._path(path).unlink()

    def rename(self, old: str, new: str) -> None:
        fail_for("EIO", "EROFS")
        self._path(old).rename(self._path(new))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        del path, datasync
        fail_for("EIO")
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        del path
        os.close(fh)


if __name__ == "__main__":
    # Without cached attributes, the kernel reads the state of a file each time, so that a test sees its own changes.
    mfusepy.FUSE(
        FaultyDisk(),
        str(MOUNT_POINT),
        foreground=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        ac_attr_timeout=0,
    )
