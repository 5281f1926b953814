"""Ctrl-C, SIGTERM and SIGHUP for commands that work until they are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from edgekit.errors import EXIT_OK


class StopSignals:
    """Within the `with` block, the first Ctrl-C or SIGTERM asks the work to end by itself, at a clean place.

    `ask` is called for that. Until `on_stop` has set one there is nothing to finish: Ctrl-C raises KeyboardInterrupt
    and SIGTERM ends the process with exit code 0, as does any further signal of either kind. SIGHUP, a terminal or an
    SSH session that went away, counts as SIGTERM.
    """

    def __init__(self, stopped_early: Callable[[], None] = lambda: None) -> None:
        """`stopped_early` is called at the end of the block if SIGTERM came before there was anything to finish."""
        self._stopped_early = stopped_early
        self.interrupted = False
        self.terminated = False
        self._ask: Callable[[], None] | None = None
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
        if kind is SystemExit and self._ask is None:
            self._stopped_early()

    def on_stop(self, ask: Callable[[], None]) -> None:
        """Set what a signal calls from now on; it runs inside the signal handler."""
        self._ask = ask

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        first = not (self.interrupted or self.terminated)
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.terminated = self.terminated or number in (signal.SIGTERM, signal.SIGHUP)
        if self._ask is not None and first:
            self._ask()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(EXIT_OK)
