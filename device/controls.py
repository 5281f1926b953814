"""Controls of a run from outside: pause, resume, and the number of commands received."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

# Longest delay until a paused run notices `resume` or `end`. The run polls their flags and does not wait for a
# `threading.Event`: the signal handler that calls `end` interrupts the thread that waits, and would wait for ever for
# the lock of the event if this thread has it.
_POLL_S = 0.1


class _PauseTimes(NamedTuple):
    """Seconds of all past pauses, and on the monotonic clock the begin of the current and the end of the last one."""

    past_s: float = 0.0
    current_began_s: float | None = None
    last_ended_s: float | None = None


class Controls:
    """Pauses and resumes a run; any thread may call the methods.

    Attributes:
        commands: Number of commands received, by name; "ignored" for those that were not executed.

    Example:
        >>> controls = Controls()
        >>> controls.pause()
        >>> controls.paused
        True
    """

    def __init__(self) -> None:
        self._paused = False
        self._ended = False  # `end` was called: `wait` returns at once
        self._while_paused: list[Callable[[], None]] = []
        # Replaced as a whole, so that a reader in another thread never sees a part of a change.
        self._times = _PauseTimes()
        self.commands: Counter[str] = Counter()

    @property
    def paused(self) -> bool:
        """Whether the run is to pause, or pauses."""
        return self._paused

    @property
    def paused_s(self) -> float:
        """Seconds that the run has waited in pauses, the current one included."""
        times = self._times
        if times.current_began_s is None:
            return times.past_s
        return times.past_s + time.monotonic() - times.current_began_s

    @property
    def resumed_for_s(self) -> float:
        """Seconds since the last pause: 0 during one, infinite without any."""
        times = self._times
        if self._paused or times.current_began_s is not None:
            return 0.0
        return float("inf") if times.last_ended_s is None else time.monotonic() - times.last_ended_s

    def pause(self) -> None:
        """Pause before the next frame is captured."""
        self._paused = True

    def resume(self) -> None:
        """Continue; without effect if the run is not paused."""
        self._paused = False

    def end(self) -> None:
        """End a pause for good, because the run ends. A signal handler may call this method."""
        self._ended = True

    def while_paused(self, call: Callable[[], None]) -> None:
        """Call `call` several times per second during pauses, in the thread that waits."""
        self._while_paused.append(call)

    def wait(self, source: Any) -> None:
        """Return when the run is not paused.

        A source with the methods `release` and `reacquire` (cameras and network streams) is released during the pause.
        The run calls this between two frames.
        """
        if not self._must_wait():
            return
        began_s = time.monotonic()
        self._times = _PauseTimes(self._times.past_s, current_began_s=began_s)
        can_release = hasattr(source, "reacquire")
        if can_release:
            source.release()
        while self._must_wait():
            for call in self._while_paused:
                call()
            time.sleep(_POLL_S)
        ended_s = time.monotonic()
        self._times = _PauseTimes(self._times.past_s + ended_s - began_s, last_ended_s=ended_s)
        if can_release:
            source.reacquire()

    def _must_wait(self) -> bool:
        """Return whether the run is paused and has not ended."""
        return self._paused and not self._ended
