"""What makes a measurement doubtful: read from what was seen before, during and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]

THROTTLED = "throttled"
CLOCK_CHANGED = "clock changed"
NOT_WARM = "not warm"
BUSY = "busy"

# A process with one of these is measured again after a pause.
INVALIDATING = (THROTTLED, CLOCK_CHANGED)

EXPLANATIONS = {
    THROTTLED: "the board slowed itself down while measuring: cool it or mend its power supply",
    CLOCK_CHANGED: "the clock was not the same all the time: set the governor to 'performance'",
    NOT_WARM: "the times had not settled when the warm-up ended: give more --seconds",
    BUSY: "other programs used the processors: stop them and measure again",
}

_CLOCK_TOLERANCE = 0.03
_BUSY_PROCESSORS = 0.25
_BUSY_SHARE = 0.05
_NOW_FLAGS = 0xF


def marks_of(process: Document, processors: int | None) -> list[str]:
    """Return the marks of one process's measurement, `processors` being those of the board.

    Throttled is what was so at any reading, and what the firmware remembers at the end and did not at the start.
    """
    found = []
    flags = [int(reading["throttle_flags"], 16) for reading in process["during"] if reading["throttle_flags"]]
    before, after = (_since_boot(process[moment]) for moment in ("before", "after"))
    if any(value & _NOW_FLAGS for value in flags) or _now(process["after"]) or after - before:
        found.append(THROTTLED)
    clocks_mhz = [reading["clock_mhz"] for reading in process["during"] if reading["clock_mhz"]]
    if clocks_mhz and max(clocks_mhz) > min(clocks_mhz) * (1 + _CLOCK_TOLERANCE):
        found.append(CLOCK_CHANGED)
    if not process["warm_up"]["stable"]:
        found.append(NOT_WARM)
    others = process["others_processors"]
    if others is not None and others > max(_BUSY_PROCESSORS, _BUSY_SHARE * (processors or 0)):
        found.append(BUSY)
    return found


def _now(conditions: Document) -> bool:
    return bool(conditions["throttling"] and conditions["throttling"]["now"])


def _since_boot(conditions: Document) -> set[str]:
    return set(conditions["throttling"]["since_boot"]) if conditions["throttling"] else set()
