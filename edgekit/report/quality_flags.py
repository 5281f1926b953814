"""Quality flags: reasons to doubt a measurement, found in the machine's state before, during and after it."""

from __future__ import annotations

from edgekit.report.document import BoardState, ProcessResult, QualityFlag

THROTTLED: QualityFlag = "throttled"
CLOCK_CHANGED: QualityFlag = "clock changed"
NOT_WARM: QualityFlag = "not warm"
BUSY: QualityFlag = "busy"

# A process with one of these is measured again after a pause.
INVALIDATING = frozenset({THROTTLED, CLOCK_CHANGED})

EXPLANATIONS: dict[QualityFlag, str] = {
    THROTTLED: "the board throttled while measuring: cool it or improve its power supply",
    CLOCK_CHANGED: "the clock changed while measuring: set the governor to 'performance'",
    NOT_WARM: "the times had not settled when the warm-up ended: measure for more seconds",
    BUSY: "other programs used the processors: stop them and measure again",
}

_CLOCK_TOLERANCE = 0.03
_BUSY_PROCESSORS = 0.25
_BUSY_SHARE = 0.05
_NOW_BITS = 0xF


def find_quality_flags(process: ProcessResult, processors: int | None) -> tuple[QualityFlag, ...]:
    """Return the quality flags of one process's measurement.

    The measurement counts as throttled if a throttle flag was set at any reading, or if the firmware has recorded one
    since the process started.

    Args:
        process: The measurement.
        processors: Number of the board's processors.
    """
    found = []
    throttle_bits = [int(reading.throttle_flags, 16) for reading in process.during if reading.throttle_flags]
    new = _throttled_since_boot(process.after) - _throttled_since_boot(process.before)
    throttled_at_end = process.after.throttling is not None and process.after.throttling.now
    if any(bits & _NOW_BITS for bits in throttle_bits) or throttled_at_end or new:
        found.append(THROTTLED)
    clocks_mhz = [reading.clock_mhz for reading in process.during if reading.clock_mhz]
    if clocks_mhz and max(clocks_mhz) > min(clocks_mhz) * (1 + _CLOCK_TOLERANCE):
        found.append(CLOCK_CHANGED)
    if not process.warm_up.stable:
        found.append(NOT_WARM)
    others = process.others_processors
    if others is not None and others > max(_BUSY_PROCESSORS, _BUSY_SHARE * (processors or 0)):
        found.append(BUSY)
    return tuple(found)


def _throttled_since_boot(state: BoardState) -> set[str]:
    return set(state.throttling.since_boot) if state.throttling else set()
