"""Warm-up and recording of latency samples in one process, and the result of that process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import msgspec
import numpy as np

from edgekit.boards import Conditions
from edgekit.device.benchmark.machine_watch import MachineWatch, OtherLoad
from edgekit.device.pipeline.latency import summarize
from edgekit.device.procfs import read_process
from edgekit.report.document import BoardState, Latency, ProcessResult, ThreadUse, WarmUp
from edgekit.report.statistics import is_stable

# Digits of times in milliseconds: a small net may take a few microseconds, and rounding must not move a median out of
# its interval.
_DIGITS = 5
_WATCH_PERIOD_S = 1.0
_MAX_READINGS = 200
_PROGRESS_PERIOD_S = 0.5


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Measurement of a cell in one process: the part for the report, `process`, and the samples.

    `samples_ms` are the times of iterations in their order; see `CellResult` for what an iteration is. The kinds
    "per-frame", "loop" and "camera" set `detector`, `faces_per_frame` and `stages_ms`; "loop" and "camera" set
    `ages_ms` (capture to result); "loop" sets `threads`. `process.started_s` is on the system's monotonic clock.
    """

    process: ProcessResult
    batch: int
    intra_op_threads: int
    samples_ms: tuple[float, ...]
    detector: str | None = None
    faces_per_frame: float | None = None
    stages_ms: dict[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    ages_ms: tuple[float, ...] = ()
    threads: ThreadUse | None = None


class Settling:
    """Decides when a warm-up ends: when the medians of its windows are stable, or after `max_s` seconds."""

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._started_s = time.perf_counter()
        self._iterations = 0
        self._medians_ms: list[float] = []

    def add_window(self, samples_ms: Sequence[float], iterations: int) -> WarmUp | None:
        """Add a window of iterations; return the finished warm-up, or None if the warm-up continues."""
        self._iterations += iterations
        self._medians_ms.append(float(np.median(samples_ms)))
        elapsed_s = time.perf_counter() - self._started_s
        stable = is_stable(self._medians_ms)
        if not stable and elapsed_s <= self._max_s:
            return None
        return WarmUp(iterations=self._iterations, seconds=round(elapsed_s, 3), stable=stable)


class Recorder:
    """Records latency samples until there are enough, and the state of the machine at intervals.

    Args:
        seconds: Minimum time of measured work.
        min_iterations: Minimum number of iterations.
        batch: Images per iteration.
        progress: Called about twice a second with the share done, outside of the measured time.
    """

    def __init__(self, seconds: float, min_iterations: int, batch: int, progress: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._min_iterations = min_iterations
        self._batch = batch
        self._progress = progress
        self._next_progress_s = 0.0
        self.samples_ms: list[float] = []
        self.iterations = 0
        self.busy_s = 0.0
        self._others = OtherLoad()
        self._watch = MachineWatch(max(_WATCH_PERIOD_S, seconds / _MAX_READINGS), batch)

    @property
    def done(self) -> bool:
        """Whether there are enough samples."""
        return self.iterations >= self._min_iterations and self.busy_s >= self._seconds

    def add(self, sample_ms: float, iterations: int = 1) -> bool:
        """Add the time of one iteration, or the mean time of consecutive ones; return `done`."""
        self.samples_ms.append(sample_ms)
        self.iterations += iterations
        self.busy_s += sample_ms * iterations / 1e3
        if self.busy_s >= self._next_progress_s or self.done:
            self._progress(min(self.busy_s / self._seconds, self.iterations / self._min_iterations, 1.0))
            self._next_progress_s = self.busy_s + _PROGRESS_PERIOD_S
        self._watch.update(self.iterations, self.busy_s, last=self.done)
        return self.done

    def result(self, load_ms: float, warm_up: WarmUp, before: Conditions, after: Conditions) -> ProcessResult:
        """Return the result of this process, without quality flags, which are determined later."""
        own = read_process()
        assert own is not None  # this process can be read
        return ProcessResult(
            started_s=self._watch.started_s,
            elapsed_s=round(self._watch.elapsed_s, 3),
            busy_s=round(self.busy_s, 3),
            load_ms=round(load_ms, 3),
            warm_up=warm_up,
            latency=latency_of(self.samples_ms),
            images_per_s=round(self._batch * self.iterations / self.busy_s, 3),
            resident_mib=round(own.resident_mib, 1),
            others_processors=self._others.processors(),
            before=board_state(before),
            during=tuple(self._watch.readings),
            after=board_state(after),
            quality_flags=(),
        )


def latency_of(samples_ms: Iterable[float]) -> Latency:
    """Return the summary of at least one sample."""
    return Latency(**{name: round(value, _DIGITS) for name, value in asdict(summarize(samples_ms)).items()})


def board_state(conditions: Conditions) -> BoardState:
    """Return the state of the board in the form that a report contains."""
    return msgspec.convert(conditions.as_document(), BoardState)
