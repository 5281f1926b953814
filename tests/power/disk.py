"""A disk that loses unflushed writes in a power cut.

qemu (blklogwrites) logs the guest's writes and flushes in the format of Linux's dm-log-writes. The image of qemu is not
used after a cut, because this machine's page cache keeps all writes to it. Instead, the image from before the boot
gets the writes up to the last flush. A real disk can lose any of the later writes.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SIZE = "192M"
_SECTOR_BYTES = 512
# A block of the file system; a disk with 4096-byte sectors writes it completely or not at all.
_BLOCK_BYTES = 4096
_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_SUPERBLOCK_AT, _INCOMPATIBLE_AT, _NEEDS_RECOVERY = 1024, 0x60, 4


@dataclass(frozen=True)
class Loss:
    """Counts of 4 KiB blocks: those written after the last flush, and those of them that the cut lost."""

    unflushed: int
    lost: int


class Disk:
    """An ext4 file system as the disk of a machine; `image` is its content while the machine is off."""

    def __init__(self, folder: Path, content: Path) -> None:
        self.image = folder / "disk"
        self._running, self._log = folder / "running", folder / "log"
        # Journal, data=ordered and barriers are ext4's defaults, as on an SD card.
        make = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", content, self.image, _SIZE]
        subprocess.run(make, check=True)

    def plug_in(self) -> list[str]:
        """Return qemu's options for the disk; call it before each boot."""
        subprocess.run(["cp", "--sparse=always", self.image, self._running], check=True)
        self._log.write_bytes(b"")
        return [
            "-blockdev", f"driver=file,node-name=image,filename={self._running}",
            "-blockdev", f"driver=file,node-name=log,filename={self._log}",
            "-blockdev", "driver=blklogwrites,node-name=disk,file=image,log=log,log-super-update-interval=1",
            "-device", "virtio-blk-pci,drive=disk,discard=off",
        ]  # fmt: skip

    def cut(self, drawn: random.Random | None) -> Loss:
        """Set `image` to the content of the disk after the last cut.

        Args:
            drawn: Decides for each block written after the last flush whether it is lost; None: all are lost.
        """
        writes = list(_logged(self._log))
        last = max((number for number, (flags, _, _) in enumerate(writes) if flags & _FLUSH), default=-1)
        unflushed = lost = 0
        with self.image.open("r+b") as image:
            for number, (flags, at, data) in enumerate(writes):
                assert not flags & _DISCARD
                for offset in range(0, len(data), _BLOCK_BYTES):
                    if number > last and not flags & _FUA:
                        unflushed += 1
                        if drawn is None or drawn.random() < 0.5:
                            lost += 1
                            continue
                    image.seek(at + offset)
                    image.write(data[offset : offset + _BLOCK_BYTES])
        return Loss(unflushed, lost)

    def needs_recovery(self) -> bool:
        """Return whether the journal of the file system needs replaying."""
        with self.image.open("rb") as image:
            image.seek(_SUPERBLOCK_AT + _INCOMPATIBLE_AT)
            return bool(int.from_bytes(image.read(4), "little") & _NEEDS_RECOVERY)


def _logged(log: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield flags, offset in bytes and data of each logged write, in order."""
    with log.open("rb") as stream:
        magic, _, count, sector_bytes = struct.unpack("<QQQI", stream.read(_SECTOR_BYTES)[:28])
        assert (magic, sector_bytes) == (_MAGIC, _SECTOR_BYTES)
        for _ in range(count):
            sector, sectors, flags, _ = struct.unpack("<QQQQ", stream.read(_SECTOR_BYTES)[:32])
            yield flags, sector * _SECTOR_BYTES, b"" if flags & _DISCARD else stream.read(sectors * _SECTOR_BYTES)
