"""The file of the event buffer: lines of a checksum and JSON, so that damage to one line costs no other.

A line holds a message, or the numbers of messages that were delivered or dropped:

    3f0c9a11 {"number": 7, "topic": "edgekit/door/event", "payload": "{...}"}
    91ab03fe {"removed": [5, 6]}
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgekit.device.sinks.mqtt.sqlite_buffer import is_sqlite, read_sqlite
from edgekit.errors import InputError, TemporaryError
from edgekit.files import is_at, lock_file, write_all

# Longer than any line of this program; a longer line of another file is read in parts, all of them damaged.
_MAX_LINE_BYTES = 1 << 20
_CHECKSUM_CHARS = 8
# Copies of damaged files that are kept; a further one replaces the last.
_MAX_COPIES = 9


@dataclass(frozen=True)
class Message:
    """A message of the buffer; numbers grow in the order of arrival."""

    number: int
    topic: str
    payload: str


@dataclass
class Contents:
    """What a file holds: messages by number, and how many of its entries are unreadable.

    `rewrite` is true for a file in the format of earlier versions, to which no line can be appended.
    """

    messages: dict[int, Message] = field(default_factory=dict)
    damaged: int = 0
    entries: int = 0
    rewrite: bool = False


class Journal:
    """A file of messages and removals, locked against other runs as long as it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: io.FileIO | None = None
        # Whether the file ends with a partial line.
        self._torn = False
        self.entries = 0
        # Whether a power cut would lose what was appended.
        self.unflushed = False

    @property
    def usable(self) -> bool:
        """Whether the file is open and still in its place."""
        return self._stream is not None and is_at(self._path, self._stream.fileno())

    def open(self) -> Contents:
        """Open or create the file and return its contents.

        Raises:
            TemporaryError: Another run uses the file.
            InputError: The file is a device.
            OSError: The file cannot be opened for writing.
        """
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and not self._path.is_file():
            raise InputError(f"MQTT buffer '{self._path}' is not a file: name a file with --mqtt-buffer")
        stream = _locked(self._path, "a+")
        try:
            stream.seek(0)
            contents = _read_sqlite(self._path) if is_sqlite(stream) else self._read(stream)
        except BaseException:
            stream.close()
            raise
        self._stream, self.entries = stream, contents.entries
        return contents

    def append(self, messages: Sequence[Message], removed: Collection[int]) -> None:
        """Append messages and removals with one write.

        Raises:
            OSError: They cannot be written; no part of them remains unless the disk fails completely.
        """
        assert self._stream is not None
        data = (b"\n" if self._torn else b"") + _lines(messages, removed)
        end = self._stream.seek(0, os.SEEK_END)
        try:
            write_all(self._stream.write, data)
        except OSError:
            self._torn = True
            with suppress(OSError):
                self._stream.truncate(end)
            raise
        self._torn = False
        self.unflushed = True
        self.entries += len(messages) + bool(removed)

    def flush(self) -> None:
        """Have the disk store what was appended.

        Raises:
            OSError: The disk fails.
        """
        if self.unflushed and self._stream is not None:
            os.fdatasync(self._stream.fileno())
        self.unflushed = False

    def clear(self) -> None:
        """Empty the file, which needs no free space."""
        if self.entries or self._torn:
            assert self._stream is not None
            self._stream.truncate(0)
            self.entries, self._torn, self.unflushed = 0, False, False

    def set_aside(self, messages: Sequence[Message]) -> Path:
        """Copy the file to a free name beside it, replace it as `rewrite` does, and return that name.

        Raises:
            OSError: There is no space for both; the file is unchanged.
        """
        names = [self._path.with_name(f"{self._path.name}.damaged-{number}") for number in range(1, _MAX_COPIES + 1)]
        copy = next((name for name in names if not name.exists()), names[-1])
        try:
            shutil.copyfile(self._path, copy)
            self.rewrite(messages)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        return copy

    def rewrite(self, messages: Sequence[Message]) -> None:
        """Replace the file by one with these messages only, atomically.

        Raises:
            OSError: The new file cannot be written; the old one is unchanged.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.new")
        temporary.unlink(missing_ok=True)
        stream = _locked(temporary, "x")
        try:
            write_all(stream.write, _lines(messages, ()))
            os.fsync(stream.fileno())
            temporary.replace(self._path)
        except OSError:
            stream.close()
            temporary.unlink(missing_ok=True)
            raise
        self.close()
        self._stream = stream
        self.entries, self._torn, self.unflushed = len(messages), False, False

    def close(self) -> None:
        """Close and unlock the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read(self, stream: io.FileIO) -> Contents:
        contents = Contents()
        reader = io.BufferedReader(stream)
        while line := reader.readline(_MAX_LINE_BYTES):
            self._torn = not line.endswith(b"\n")
            if line.strip():
                contents.entries += 1
                _take(line.rstrip(b"\n"), contents)
        reader.detach()
        return contents


def _read_sqlite(path: Path) -> Contents:
    rows, damaged = read_sqlite(path)
    messages = {number: Message(number, topic, payload) for number, topic, payload in rows}
    return Contents(messages, damaged, len(messages), rewrite=True)


def _locked(path: Path, mode: str) -> io.FileIO:
    stream = io.FileIO(path, mode)
    try:
        lock_file(stream.fileno())
    except BlockingIOError as error:
        stream.close()
        raise TemporaryError(
            f"MQTT buffer '{path}' is in use by another run: give each run its own --mqtt-topic"
        ) from error
    return stream


def _lines(messages: Iterable[Message], removed: Collection[int]) -> bytes:
    documents: list[object] = [asdict(message) for message in messages]
    if removed:
        documents.append({"removed": sorted(removed)})
    return b"".join(_line(json.dumps(document).encode()) for document in documents)


def _line(text: bytes) -> bytes:
    return b"%0*x %b\n" % (_CHECKSUM_CHARS, zlib.crc32(text), text)


def _take(line: bytes, contents: Contents) -> None:
    """Add what a line states, or count it as damaged."""
    text = line[_CHECKSUM_CHARS + 1 :]
    if _line(text) != line + b"\n":
        contents.damaged += 1
        return
    document = json.loads(text)
    if "removed" in document:
        for number in document["removed"]:
            contents.messages.pop(number, None)
    else:
        contents.messages[document["number"]] = Message(**document)
