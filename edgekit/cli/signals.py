"""Ctrl-C, SIGTERM and SIGHUP for commands that run until they are stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from edgekit.errors import EXIT_OK


class StopSignals:
    """Within the `with` block, the first Ctrl-C or SIGTERM stops the work between two frames.

    The signal calls the function set by `on_stop`. Before one is set, and at every further signal, Ctrl-C raises
    KeyboardInterrupt and SIGTERM ends the process with exit code 0. SIGHUP (a closed terminal or SSH session) acts as
    SIGTERM.
    """

    def __init__(self, stopped_early: Callable[[], None] = lambda: None) -> None:
        """`stopped_early` is called at the end of the block if SIGTERM arrived before `on_stop` was called."""
        self._stopped_early = stopped_early
        self.interrupted = False  # by Ctrl-C
        self.terminated = False  # by SIGTERM or SIGHUP
        self._stop: Callable[[], None] | None = None  # set by `on_stop`
        self._stop_was_called = False
        self._previous_handlers: dict[int, Any] = {}  # by number of the signal

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:  # nohup, or a shell's background job
                continue
            self._previous_handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """Restore the handlers.

        If an exception ends the block after a signal that came before `on_stop`, raise the signal's own exception: a
        library that was being imported may have replaced it by another one.
        """
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        has_early_signal = self.received and self._stop is None
        has_failed = kind is not None  # else the block has ended in spite of the signal; see `raise_interrupt`
        if not (has_early_signal and has_failed):
            return
        if self.interrupted:
            raise KeyboardInterrupt
        self._stopped_early()
        raise SystemExit(EXIT_OK)

    @property
    def received(self) -> bool:
        """Whether any of the signals has arrived."""
        return self.interrupted or self.terminated

    def raise_interrupt(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.interrupted:
            raise KeyboardInterrupt

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Set the function that the signal handler calls from now on; call it if Python ignored an earlier signal."""
        self._stop = stop
        if self.received:
            self._stop_was_called = True
            stop()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one after `on_stop` calls its function; all others raise an exception."""
        del frame
        if number == signal.SIGINT:
            self.interrupted = True
        else:
            self.terminated = True
        if self._stop is not None and not self._stop_was_called:
            self._stop_was_called = True
            self._stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(EXIT_OK)  # for systemd, a stop by SIGTERM is no failure
