"""Talking with a local process whose other end may be anybody: in bounded memory, with an end in sight."""

from __future__ import annotations

import math
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Literal

MAX_LINE_BYTES = 1 << 12
_KEPT_ERROR_BYTES = 1 << 16
_READ_BYTES = 1 << 16
_LOOK_EVERY_S = 0.2


class Tail:
    """The last bytes of a stream."""

    def __init__(self, kept_bytes: int = _KEPT_ERROR_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._content = bytearray()
        self.closed = threading.Event()

    def add(self, data: bytes) -> None:
        """Take more; what is too old goes."""
        self._content += data
        if len(self._content) > self._kept_bytes:
            del self._content[: -self._kept_bytes]

    def content(self) -> bytes:
        """Return what was kept."""
        return bytes(self._content)

    def text(self) -> str:
        """Return what was kept as text; bytes that are no UTF-8 are replaced."""
        return self._content.decode(errors="replace")


@dataclass
class Talk:
    """What came of it. `ended` says why it stopped: by itself, or because it went beyond one of its limits."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: Tail = field(default_factory=Tail)
    ended: Literal["by itself", "too late", "too silent", "too much", "too many complaints"] = "by itself"


@dataclass(frozen=True)
class Limits:
    """How far it may go: seconds in all, seconds without a word from it or a byte taken by it, bytes it may say."""

    timeout_s: float | None
    silence_s: float | None
    stdout_bytes: int
    stderr_bytes: int


def communicate(
    process: subprocess.Popen[bytes],
    chunks: Iterable[bytes],
    hold_stdin: bool,
    limits: Limits,
    on_stderr_line: Callable[[str], None] | None,
) -> Talk:
    """Feed a process, hear it out, and return what it said; it has ended, or was killed, afterwards.

    Its pipes, made with `bufsize=0`, may be held open by others (ssh hands them to the process of its shared
    connection), so its end counts as well as theirs.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    talk = Talk()
    lines = _Lines(on_stderr_line)
    until_s = _after(limits.timeout_s)
    silent_until_s = _after(limits.silence_s)
    complained_bytes = 0
    with selectors.DefaultSelector() as selector:
        feeder = _Feeder(process.stdin, iter(chunks), hold_stdin, selector)
        for stream in (process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        hearing = 2
        while hearing:
            over = process.poll() is not None
            events = selector.select(0 if over else _LOOK_EVERY_S)
            heard = False
            for key, _ in events:
                silent_until_s = _after(limits.silence_s)
                if key.fileobj is process.stdin:
                    feeder.feed()
                    continue
                data = _read(key.fd)
                if data is None:
                    continue
                heard = True
                if not data:
                    selector.unregister(key.fileobj)
                    hearing -= 1
                elif key.fileobj is process.stdout:
                    talk.stdout += data
                else:
                    complained_bytes += len(data)
                    talk.stderr.add(data)
                    lines.add(data)
            if len(talk.stdout) > limits.stdout_bytes:
                talk.ended = "too much"
            elif complained_bytes > limits.stderr_bytes:
                talk.ended = "too many complaints"
            elif time.monotonic() > until_s:
                talk.ended = "too late"
            elif time.monotonic() > silent_until_s:
                talk.ended = "too silent"
            if talk.ended != "by itself" or (over and not heard):
                break
    lines.end()
    if talk.ended != "by itself":
        process.kill()
    process.wait()
    return talk


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else time.monotonic() + seconds


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class _Feeder:
    """Writes chunks as the process takes them."""

    def __init__(
        self, stream: IO[bytes], chunks: Iterator[bytes], hold: bool, selector: selectors.BaseSelector
    ) -> None:
        self._stream = stream
        self._chunks = chunks
        self._hold = hold
        self._selector = selector
        self._rest = memoryview(b"")
        os.set_blocking(stream.fileno(), False)
        selector.register(stream, selectors.EVENT_WRITE)

    def feed(self) -> None:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._selector.unregister(self._stream)
                if not self._hold:
                    self._stream.close()
                return
            self._rest = memoryview(chunk)
        try:
            self._rest = self._rest[os.write(self._stream.fileno(), self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            # It has seen enough and closed its stdin: no fault of ours.
            self._selector.unregister(self._stream)
            with suppress(OSError):
                self._stream.close()


class _Lines:
    """Cuts a stream into lines of bounded length."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._rest = b""

    def add(self, data: bytes) -> None:
        if self._tell is None:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        for line in lines:
            self._tell(line[:MAX_LINE_BYTES].decode(errors="replace"))

    def end(self) -> None:
        if self._tell is not None and self._rest:
            self._tell(self._rest.decode(errors="replace"))
