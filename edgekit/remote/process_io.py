"""Exchanges data with a local process within limits of memory and time, because its output is not trusted."""

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
_MAX_PREAMBLE_BYTES = 1 << 16
_POLL_S = 0.2


class Tail:
    """The last 64 KiB of a stream."""

    def __init__(self) -> None:
        self._content = bytearray()
        self.closed = threading.Event()

    def add(self, data: bytes) -> None:
        """Append data, and drop the oldest bytes beyond the limit."""
        self._content += data
        del self._content[:-_KEPT_ERROR_BYTES]

    def content(self) -> bytes:
        """Return the kept bytes."""
        return bytes(self._content)

    def text(self) -> str:
        """Return the kept bytes as text; bytes that are not UTF-8 are replaced."""
        return self._content.decode(errors="replace")


@dataclass
class ProcessOutput:
    """Output of a process; `exceeded` is the limit at which it was killed, None if it ended by itself.

    `preamble` is what it printed on stdout before the limits' `marker`, and `stdout` what it printed after the marker.
    `marked` is True if the marker was found.
    """

    stdout: bytearray = field(default_factory=bytearray)
    preamble: bytearray = field(default_factory=bytearray)
    marked: bool = False
    stderr: Tail = field(default_factory=Tail)
    exceeded: Literal["time", "silence", "stdout", "stderr"] | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of a process: seconds in total, seconds without any input or output, and bytes of output.

    The bytes of stdout are counted after `marker`, a line that begins the output; a text before it may have 64 KiB.
    """

    timeout_s: float | None
    silence_s: float | None
    stdout_bytes: int
    stderr_bytes: int
    marker: bytes


def communicate(
    process: subprocess.Popen[bytes],
    chunks: Iterable[bytes],
    hold_stdin: bool,
    limits: Limits,
    on_stderr_line: Callable[[str], None] | None,
) -> ProcessOutput:
    """Write `chunks` to a process and return its output; afterwards the process has ended.

    Its pipes must be made with `bufsize=0`. Reading stops when the pipes are closed or the process has ended, because
    other processes may hold the pipes open: ssh passes them to the process of its shared connection.
    """
    output = ProcessOutput()
    with selectors.DefaultSelector() as selector:
        writer = _Writer(process, iter(chunks), hold_stdin, selector)
        reader = _Reader(process, selector, output, on_stderr_line, limits.marker)
        end_s, silence_end_s = _after(limits.timeout_s), _after(limits.silence_s)
        while reader.open_streams and output.exceeded is None:
            ended = process.poll() is not None
            events = selector.select(0 if ended else _POLL_S)
            if events:
                silence_end_s = _after(limits.silence_s)
            has_read = False
            for key, _ in events:
                if key.fileobj is process.stdin:
                    writer.write()
                else:
                    has_read |= reader.read(key)
            if ended and not has_read:
                break
            if len(output.stdout) > limits.stdout_bytes or len(output.preamble) > _MAX_PREAMBLE_BYTES:
                output.exceeded = "stdout"
            elif reader.stderr_bytes > limits.stderr_bytes:
                output.exceeded = "stderr"
            elif time.monotonic() > end_s:
                output.exceeded = "time"
            elif time.monotonic() > silence_end_s:
                output.exceeded = "silence"
    reader.end()
    if output.exceeded is not None:
        process.kill()
    process.wait()
    return output


class _Writer:
    """Writes chunks to stdin of a process as fast as the process reads."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        chunks: Iterator[bytes],
        hold: bool,
        selector: selectors.BaseSelector,
    ) -> None:
        assert process.stdin is not None
        self._stream = process.stdin
        self._chunks = chunks
        self._hold = hold
        self._selector = selector
        self._rest = memoryview(b"")
        os.set_blocking(self._stream.fileno(), False)
        selector.register(self._stream, selectors.EVENT_WRITE)

    def write(self) -> None:
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
            # The process closed its stdin; it may do that and still succeed.
            self._selector.unregister(self._stream)
            with suppress(OSError):
                self._stream.close()


class _Reader:
    """Reads stdout and stderr of a process into `output`, and calls `on_stderr_line` with lines of bounded length."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        selector: selectors.BaseSelector,
        output: ProcessOutput,
        on_stderr_line: Callable[[str], None] | None,
        marker: bytes,
    ) -> None:
        self._marker = marker
        self._stdout: IO[bytes] | None = process.stdout
        self._selector = selector
        self._output = output
        self._on_line = on_stderr_line
        self._rest = b""
        self.open_streams = 2
        self.stderr_bytes = 0
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)

    def read(self, key: selectors.SelectorKey) -> bool:
        """Read once from one of the streams; return False if no data was available."""
        try:
            data = os.read(key.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(key.fileobj)
            self.open_streams -= 1
        elif key.fileobj is self._stdout:
            self._add_stdout(data)
        else:
            self.stderr_bytes += len(data)
            self._output.stderr.add(data)
            self._split_lines(data)
        return True

    def _add_stdout(self, data: bytes) -> None:
        output = self._output
        if output.marked:
            output.stdout += data
            return
        output.preamble += data
        at = output.preamble.find(self._marker)
        if at >= 0:
            output.marked = True
            output.stdout += output.preamble[at + len(self._marker) :]
            del output.preamble[at:]

    def end(self) -> None:
        """Call `on_stderr_line` with a last line that has no line break."""
        if self._on_line is not None and self._rest:
            self._on_line(self._rest.decode(errors="replace"))

    def _split_lines(self, data: bytes) -> None:
        if self._on_line is None:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        for line in lines:
            self._on_line(line[:MAX_LINE_BYTES].decode(errors="replace"))


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else time.monotonic() + seconds
