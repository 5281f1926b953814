"""Ends the process within two seconds of a signal that the main thread cannot handle, see `edgekit.native_calls`.

Python's C handler writes each signal's number to a pipe at once, whatever the main thread does. A thread reads the
pipe. `CANCEL_S` after a signal it cancels the native calls that began before the signal, and repeats the signal, so
that a main thread that waits for such a call in another thread stops waiting. `CANCEL_S` later it ends the process if a
call still blocks the main thread.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

from edgekit import native_calls
from edgekit.errors import EXIT_INTERRUPTED, InputError

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class NativeWatch:
    """The watching thread, from `start` to `stop`; both are called in the main thread."""

    def start(self) -> None:
        """Begin to watch for signals."""
        self._stopped = threading.Event()
        self._reader_fd, self._writer_fd = os.pipe()
        os.set_blocking(self._writer_fd, False)
        self._previous_fd = signal.set_wakeup_fd(self._writer_fd, warn_on_full_buffer=False)
        self._previous_stuck, native_calls.on_stuck = native_calls.on_stuck, _end_stuck
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def stop(self) -> None:
        """End the thread; it sends no signal from now on."""
        self._stopped.set()
        signal.set_wakeup_fd(self._previous_fd)
        native_calls.on_stuck = self._previous_stuck
        os.close(self._writer_fd)

    def _watch(self) -> None:
        while numbers := os.read(self._reader_fd, 64):
            received_s = time.monotonic()
            for number in _ENDING.intersection(numbers):
                _end_calls(number, received_s, self._stopped)
        os.close(self._reader_fd)


def _end_calls(number: int, received_s: float, stopped: threading.Event) -> None:
    # A signal that arrives after the clean-up, while Python ends, would kill the process.
    if stopped.wait(native_calls.CANCEL_S):
        return
    calls = native_calls.running_since(received_s)
    if not calls:
        return
    for call in calls:
        call.cancel(KeyboardInterrupt())
    os.kill(os.getpid(), number)
    if not stopped.wait(native_calls.CANCEL_S) and any(
        call.in_main_thread for call in native_calls.running_since(received_s)
    ):
        _end_process("interrupted", EXIT_INTERRUPTED)


def _end_stuck(error: InputError) -> None:
    _end_process(f"error: {error}", error.exit_code)


def _end_process(text: str, exit_code: int) -> None:
    """End the process from any thread, without clean-up, after one line on stderr."""
    with suppress(OSError):  # a stderr that is closed or full must not keep the process
        os.write(2, f"edgekit: {text}\n".encode(errors="replace"))
    os._exit(exit_code)


def _forget() -> None:
    # A child process without exec, such as a worker of a data loader, would write its signals to the parent's pipe.
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget)
