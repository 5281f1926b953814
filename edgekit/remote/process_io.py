"""Exchanges data with a local process: writes its stdin, reads its stdout, and passes on the lines of its stderr."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

MAX_LINE_BYTES = 1 << 12
_KEPT_ERROR_BYTES = 1 << 16
_READ_BYTES = 1 << 16
# Time for the last output after the process has ended: ssh passes its pipes to the process of the shared connection.
_DRAIN_S = 5.0


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
    """Output of a process; `timed_out` is True if it was killed. `failures` are exceptions of the callback."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: Tail = field(default_factory=Tail)
    timed_out: bool = False
    failures: list[Exception] = field(default_factory=list)


def communicate(
    process: subprocess.Popen[bytes],
    chunks: Iterable[bytes],
    hold_stdin: bool,
    timeout_s: float | None,
    on_stderr_line: Callable[[str], None] | None,
) -> ProcessOutput:
    """Write `chunks` to a process and return its output; afterwards the process has ended.

    `on_stderr_line` is called from another thread, with lines of at most 4 KiB.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    output = ProcessOutput()
    readers = (
        threading.Thread(target=_read, args=(process.stdout, output), daemon=True),
        threading.Thread(target=_read_lines, args=(process.stderr, output, on_stderr_line), daemon=True),
    )
    writer = threading.Thread(target=_write, args=(process.stdin, chunks, hold_stdin), daemon=True)
    for thread in (*readers, writer):
        thread.start()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        output.timed_out = True
        process.kill()
        process.wait()
    for thread in readers:
        thread.join(_DRAIN_S)
    if output.failures:
        raise output.failures[0]
    return output


def _write(stream: IO[bytes], chunks: Iterable[bytes], hold: bool) -> None:
    with suppress(OSError, ValueError):  # the process closed its stdin; it may do that and still succeed
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[stream.write(rest) :]
        finally:
            if not hold:
                stream.close()


def _read(stream: IO[bytes], output: ProcessOutput) -> None:
    with suppress(OSError, ValueError):  # closed by another thread
        while data := stream.read(_READ_BYTES):
            output.stdout += data


def _read_lines(stream: IO[bytes], output: ProcessOutput, on_line: Callable[[str], None] | None) -> None:
    rest = b""
    with suppress(OSError, ValueError):
        while data := stream.read(_READ_BYTES):
            output.stderr.add(data)
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            _pass_on(lines, output, on_line)
    _pass_on([rest] if rest else [], output, on_line)


def _pass_on(lines: Iterable[bytes], output: ProcessOutput, on_line: Callable[[str], None] | None) -> None:
    for line in lines:
        if on_line is not None and not output.failures:  # after a failure, the stream is still read to its end
            try:
                on_line(line[:MAX_LINE_BYTES].decode(errors="replace"))
            except Exception as error:
                output.failures.append(error)
