"""Latencies per stage with percentiles, and the frame rate of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Percentiles cover the latest samples (half an hour at 28 fps), so that a run of weeks uses bounded memory.
_KEPT_SAMPLES = 50_000


@dataclass(frozen=True)
class LatencySummary:
    """Statistics of a set of latencies; percentiles interpolate linearly between samples."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def summarize(samples_ms: Iterable[float]) -> LatencySummary:
    """Return the statistics of latencies in milliseconds.

    Raises:
        ValueError: There are no samples.
    """
    samples = np.fromiter(samples_ms, np.float64)
    if samples.size == 0:
        raise ValueError("no samples to summarize")
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return LatencySummary(
        count=int(samples.size),
        mean_ms=float(samples.mean()),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        max_ms=float(samples.max()),
    )


class LatencyMeter:
    """Collects the stage times of every frame and the frame rate.

    Call `start` when the run begins and `add` after each frame. `dropped_by_stage` counts, per stage, the frames of
    that stage that newer ones replaced.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started_s = self._ended_s = clock()
        self._samples_ms: dict[str, _Latest] = {}
        self._paused_s = 0.0
        self.frames = 0
        self.dropped_by_stage: Mapping[str, int] = {}

    @property
    def dropped(self) -> int:
        """Frames replaced by newer ones, in all stages."""
        return sum(self.dropped_by_stage.values())

    def start(self) -> None:
        """Start the clock of the frame rate."""
        self._started_s = self._ended_s = self._clock()

    def add(self, stage_ms: Mapping[str, float], paused_s: float = 0.0) -> None:
        """Add a frame that ends now.

        Args:
            stage_ms: Its stages, with their milliseconds.
            paused_s: Seconds of all pauses of the run before this frame; the frame rate excludes them.
        """
        self.frames += 1
        self._ended_s, self._paused_s = self._clock(), paused_s
        for stage, duration_ms in stage_ms.items():
            if stage not in self._samples_ms:
                self._samples_ms[stage] = _Latest(_KEPT_SAMPLES)
            self._samples_ms[stage].append(duration_ms)

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start to the end of the last frame, without pauses."""
        return self._ended_s - self._started_s - self._paused_s

    @property
    def fps(self) -> float:
        """Frames per second over `elapsed_s`; 0 before the first counted frame."""
        return self.frames / self.elapsed_s if self.frames and self.elapsed_s > 0 else 0.0

    def stages(self) -> dict[str, LatencySummary]:
        """Return the statistics of the stages by name, in the order of first appearance; empty without frames."""
        return {stage: summarize(samples.values()) for stage, samples in self._samples_ms.items()}


class _Latest:
    """Ring buffer of the latest samples, allocated at once so that memory does not grow during a run."""

    def __init__(self, kept: int) -> None:
        self._ring = np.full(kept, np.nan)
        self._count = 0

    def append(self, value: float) -> None:
        self._ring[self._count % len(self._ring)] = value
        self._count += 1

    def values(self) -> NDArray[np.float64]:
        return self._ring[: self._count]
