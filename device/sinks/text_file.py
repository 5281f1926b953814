"""Text files of whole lines: a full disk or a power cut leaves no partial line behind."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgekit.device.sinks.writer import Target
from edgekit.errors import StorageError
from edgekit.files import write_all

# Longer than any line; a power cut leaves at most one partial line at the end of a file.
_TAIL_BYTES = 1 << 20
# The first Unix time in a file: the `wall_s` of its first record.
_UNIX_TIME = re.compile(rb"\b\d{10}\.\d+")


class TextFile:
    """A file to which lines are appended in place, so that other programs can follow it; an existing one is continued.

    Lines that do not fit on the disk are removed again.

    Attributes:
        size_bytes: Current size.
        age_s: Age when it was opened, by the time of its first record.
    """

    def __init__(self, path: Path, header: str) -> None:
        """Open or create `path` and its folder; a new file begins with `header`.

        Raises:
            StorageError: The file cannot be created.
        """
        self._path = path
        self.age_s = 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A pipe or a device is opened for writing only. O_APPEND: no gap follows if another program empties it.
            flags = os.O_RDWR if path.is_file() or not path.exists() else os.O_WRONLY
            self._handle = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o666)
            self._is_regular = stat.S_ISREG(os.fstat(self._handle).st_mode)
            self.size_bytes = self._drop_partial_line() if self._is_regular else 0
            self._header = b"" if self.size_bytes else header.encode()
            if self.size_bytes and (found := _UNIX_TIME.search(os.pread(self._handle, _TAIL_BYTES, 0))):
                self.age_s = max(0.0, time.time() - float(found[0]))
        except OSError as error:
            raise self._failure(error) from error

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._handle

    def write(self, items: Sequence[str]) -> int:
        """Append whole lines and pass them to the operating system at once; return the number of items.

        Raises:
            StorageError: The lines cannot be written, and none of them is in the file.
        """
        data = self._header + "".join(items).encode()
        try:
            write_all(partial(os.write, self._handle), data)
        except OSError as error:
            if self._is_regular:
                os.ftruncate(self._handle, self.size_bytes)
            raise self._failure(error) from error
        self._header = b""
        self.size_bytes += len(data)
        return len(items)

    def close(self) -> int:
        """Close the file."""
        os.close(self._handle)
        return 0

    def _drop_partial_line(self) -> int:
        """Truncate the file after its last line end and return its length in bytes."""
        size = os.fstat(self._handle).st_size
        start = max(0, size - _TAIL_BYTES)
        whole = start + os.pread(self._handle, _TAIL_BYTES, start).rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._handle, whole)
        return whole

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write '{self._path}': {error.strerror or error}")


class StandardOutput(Target[str]):
    """Standard output as the target of a writer."""

    def write(self, items: Sequence[str]) -> int:
        """Write lines and pass them on at once.

        Raises:
            BrokenPipeError: The program that reads stdout needs no more, as `| head`.
            StorageError: Nothing can be written.
        """
        try:
            sys.stdout.write("".join(items))
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write to stdout: {error.strerror or error}") from error
        return len(items)


def has_header(path: Path, header: str) -> bool:
    """Return whether a file can be continued: it is missing, empty, no regular file, or begins with `header`."""
    if not header or not path.is_file():
        return True
    with path.open("rb") as stream:
        return stream.read(len(header.encode())) in (b"", header.encode())
