"""Exchange of data with a local process: its stdin is written while its stdout and the lines of stderr are read."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO

from edgekit.files import write_all

# Time for the last output after the process has ended: ssh passes its pipes to the process of the shared connection.
_DRAIN_S = 5.0
_READ_BYTES = 1 << 16


class Exchange:
    """One exchange; `stdout` and `stderr` are what was read so far."""

    def __init__(self, process: subprocess.Popen[bytes], on_stderr_line: Callable[[str], None] | None) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self._failure: Exception | None = None
        self._process = process
        self._on_stderr_line = on_stderr_line or (lambda _: None)

    def run(self, chunks: Iterable[bytes], hold_stdin: bool, timeout_s: float | None) -> None:
        """Write `chunks` and read until the process ends.

        Raises:
            subprocess.TimeoutExpired: The process did not end in time.
        """
        readers = [threading.Thread(target=target, daemon=True) for target in (self._read_stdout, self._read_stderr)]
        writer = threading.Thread(target=self._write, args=(chunks, hold_stdin), daemon=True)
        for thread in (*readers, writer):
            thread.start()
        self._process.wait(timeout_s)
        for thread in readers:
            thread.join(_DRAIN_S)
        if self._failure is not None:
            raise self._failure

    def _write(self, chunks: Iterable[bytes], hold: bool) -> None:
        stream = self._process.stdin
        assert stream is not None
        try:
            for chunk in chunks:
                write_all(stream.write, chunk)
        except (BrokenPipeError, ValueError):
            pass  # the process closed its stdin; it may do that and still succeed
        except Exception as error:  # such as of a file that cannot be read
            self._failure = error
        if self._failure is not None or not hold:
            with suppress(OSError, ValueError):
                stream.close()

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        for data in _chunks(self._process.stdout):
            self.stdout += data

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        for data in _chunks(self._process.stderr):
            self.stderr += data
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    self._on_stderr_line(line.decode(errors="replace"))
                except Exception as error:  # the stream is still read to its end
                    self._failure = error


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with suppress(OSError, ValueError):  # closed by another thread
        while data := stream.read(_READ_BYTES):
            yield data
