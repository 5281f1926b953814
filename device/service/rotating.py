"""A log that keeps to its size: whole lines with the time before each."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 1 << 20
KEPT_FILES = 4
# A line longer than this is broken: what has no end must not fill the memory.
_LONGEST_LINE_BYTES = 1 << 16


class RotatingLog:
    """Appends lines to `path`; a full one becomes `path.1`, that one `path.2`, and the oldest goes.

    A disk that is full or read-only loses lines, never the program.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept_files: int = KEPT_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take a piece of output and write the lines that it completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        self._write(lines)

    def flush(self) -> None:
        """Write what is left as a line of its own."""
        if self._rest:
            self._write([self._rest])
            self._rest = b""

    def say(self, text: str) -> None:
        """Write a line of the supervisor's own."""
        self.flush()
        self._write([b"supervisor: " + text.encode(errors="replace")])

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z ").encode()
        data = b"".join(stamp + _printable(line) + b"\n" for line in lines)
        with suppress(OSError):
            if self._path.exists() and self._path.stat().st_size + len(data) > self._max_bytes:
                self._rotate()
            with self._path.open("ab") as stream:
                stream.write(data)

    def _rotate(self) -> None:
        for number in range(self._kept_files, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


def _printable(line: bytes) -> bytes:
    # What a stream says ends up here, and from here on a terminal.
    text = line.decode(errors="replace")
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text).encode()
