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
        self.interrupted = False
        self.terminated = False
        self._stop: Callable[[], None] | None = None
        self._stopping = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:  # nohup, or a shell's background job
                continue
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is None or not self.received or self._stop is not None:
            return
        # A signal arrived, and its exception did not: a library that was being imported raised another in its place.
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
            self._stopping = True
            stop()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.terminated = self.terminated or number in (signal.SIGTERM, signal.SIGHUP)
        if self._stop is not None and not self._stopping:
            self._stopping = True
            self._stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(EXIT_OK)
