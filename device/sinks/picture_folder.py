"""A folder of pictures whose number and size are bounded."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from edgekit.device.sinks.writer import LostError
from edgekit.errors import InputError
from edgekit.files import remove_folder_leftovers, write_atomic

FOLDER_FULL = "folder full"
# The smallest step between two modification times: FAT stores times in steps of two seconds.
_STEP_NS = 2_000_000_000

# Of --collect: the folder of the crops, and the file with one line for each.
CROPS_FOLDER = "crops"
CROPS_FILE = "crops.jsonl"


class PictureFolder:
    """Writes pictures; beyond the limits, the oldest are deleted, or no more are written.

    The modification times of pictures that may be deleted are the order in which they were written: each is later than
    the previous one, also if the board's clock goes back.

    Attributes:
        folder: The folder, which is created with the first picture.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        *,
        most_files: int,
        most_bytes: int,
        deletable: re.Pattern[str] | None = None,
        beside: str = "",
    ) -> None:
        """Prepare to write pictures whose names end in `suffix`.

        Args:
            folder: The folder.
            suffix: End of the names.
            most_files: Largest number of pictures.
            most_bytes: Largest sum of their sizes.
            deletable: Matches the names of the pictures that count and may be deleted. None: all pictures count, and
                none is deleted.
            beside: Suffix of a second file of each picture, which is counted and deleted with it.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file: name a folder for the pictures")
        self.folder = folder
        self._suffix = suffix
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._deletable = deletable
        self._beside = beside
        # Names and sizes in bytes of the pictures, the oldest first; None: not counted yet.
        self._stored: deque[tuple[str, int]] | None = None
        # The sum of these sizes, and the latest modification time.
        self._bytes = 0
        self._latest_ns = 0

    def store(self, name: str, data: bytes) -> None:
        """Write a picture.

        Raises:
            StorageError: The disk fails.
            LostError: The folder is full.
        """
        if self._stored is None:
            remove_folder_leftovers(self.folder, self._suffix)  # those of a power cut
            self._recount()
        if self._deletable is None and self._exceeds(more_files=1, more_bytes=len(data)):
            self._recount()  # the user may have labelled or deleted some meanwhile
            if self._exceeds(more_files=1, more_bytes=len(data)):
                raise LostError(FOLDER_FULL, f"'{self.folder}' is full ({len(self._stored or ())} pictures)")
        write_atomic(self.folder / name, data)
        self._add(name, len(data))

    def make_room(self, name: str, size_bytes: int) -> bool:
        """Delete the oldest pictures until a file of this size fits into the limit; return whether it fits.

        The caller is writing the file, under `name`. It is left out of the sum until `count` is called for it.
        """
        self._count_others(name)
        # A file that cannot be deleted is no error here: its place counts as taken.
        with suppress(OSError):
            while self._stored and self._exceeds(more_files=1, more_bytes=size_bytes):
                self._delete_oldest()
        # False: the file alone exceeds the limit, or nothing could be deleted.
        return not self._exceeds(more_files=1, more_bytes=size_bytes)

    def count(self, name: str) -> None:
        """Count a picture that the caller has written."""
        self._count_others(name)
        with suppress(OSError):
            self._add(name, self._size_bytes(self.folder / name))

    def _count_others(self, name: str) -> None:
        """Count the pictures of earlier runs, but not `name`."""
        if self._stored is None:
            self._recount(besides=name)

    def _add(self, name: str, size_bytes: int) -> None:
        """Count a new picture, and delete older ones that exceed the limits.

        They are deleted after the new one is written, so that a disk that fails keeps them.
        """
        assert self._stored is not None
        self._stored.append((name, size_bytes))
        self._bytes += size_bytes
        if self._deletable is None:  # `store` has checked the limits
            return
        # Each modification time is later than the one before, also if the clock goes back.
        self._latest_ns = max(time.time_ns(), self._latest_ns + _STEP_NS)
        with suppress(OSError):
            os.utime(self.folder / name, ns=(self._latest_ns, self._latest_ns))
        with suppress(OSError):
            while len(self._stored) > 1 and self._exceeds():  # the new one stays
                self._delete_oldest()

    def _delete_oldest(self) -> None:
        assert self._stored
        name, size_bytes = self._stored[0]
        for path in self._files(name):
            path.unlink(missing_ok=True)
        # After the files: an OSError leaves the picture in the counts.
        self._stored.popleft()
        self._bytes -= size_bytes

    def remove(self, name: str) -> None:
        """Remove the picture again that was stored last."""
        (self.folder / name).unlink(missing_ok=True)
        if self._stored:
            self._bytes -= self._stored.pop()[1]

    def _exceeds(self, more_files: int = 0, more_bytes: int = 0) -> bool:
        """Return whether the pictures, and these more, exceed a limit."""
        files = len(self._stored or ()) + more_files
        return files > self._most_files or self._bytes + more_bytes > self._most_bytes

    def _files(self, name: str) -> list[Path]:
        """Return the file of a picture, and the one beside it."""
        path = self.folder / name
        return [path, *([path.with_suffix(self._beside)] if self._beside else [])]

    def _size_bytes(self, path: Path) -> int:
        return sum(file.stat().st_size for file in self._files(path.name) if file.exists())

    def _recount(self, besides: str = "") -> None:
        """Count the pictures in the folder, without the one named `besides`, which the caller is writing."""
        found = []
        with suppress(OSError):
            for path in self.folder.glob(f"*{self._suffix}"):
                if self._deletable is None or self._deletable.fullmatch(path.name):
                    with suppress(OSError):  # deleted in this moment, or damaged
                        found.append((path.stat().st_mtime_ns, path.name, self._size_bytes(path)))
        found.sort()  # the oldest first
        self._latest_ns = found[-1][0] if found else 0
        self._stored = deque((name, size_bytes) for _time_ns, name, size_bytes in found if name != besides)
        self._bytes = sum(size_bytes for _name, size_bytes in self._stored)
