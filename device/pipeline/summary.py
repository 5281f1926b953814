"""Latencies per stage, the frame rate and the counts of a run, as text and as a JSON document."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Subject
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.text import TextTable

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
        """Read times from `clock`, in seconds."""
        self._clock = clock
        self._started_s = self._ended_s = clock()
        # The latest times of each stage, for the percentiles.
        self._samples_ms: dict[str, _Latest] = {}
        self._paused_s = 0.0  # of all pauses before the latest frame
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
        """Add a sample; the oldest one is replaced if the buffer is full."""
        self._ring[self._count % len(self._ring)] = value
        self._count += 1

    def values(self) -> NDArray[np.float64]:
        """Return the kept samples, not in their order once the buffer is full."""
        return self._ring[: self._count]


# What the stages of the table mean, where the name of a record's field is not a common word.
_TITLES = {"age": "capture to result", "sinks": "outputs", "wait": "wait for a stage"}


class Tally(Sink):
    """A sink that counts faces, or whole images, their classifications and labels."""

    def __init__(self) -> None:
        self.faces = 0
        self.classified = 0
        self.frames_with_faces = 0
        self.labels: Counter[str] = Counter()
        self.subject: Subject = "face"

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Add the frame's faces."""
        del frame
        self.subject = result.subject
        self.faces += len(result.faces)
        self.frames_with_faces += bool(result.faces)
        # One pass, because each iteration builds the `Face` objects again.
        for face in result.faces:
            self.classified += face.classified
            self.labels[face.label] += 1


def summary_document(meter: LatencyMeter, tally: Tally) -> dict[str, Any]:
    """Return the summary ready for JSON: counts, frame rate, faces per label and latency per stage."""
    return {
        "frames": meter.frames,
        "faces": tally.faces,
        "classified": tally.classified,
        "frames_with_faces": tally.frames_with_faces,
        "dropped": meter.dropped,
        "dropped_by_stage": dict(meter.dropped_by_stage),
        "seconds": round(meter.elapsed_s, 3),
        "fps": round(meter.fps, 2),
        "labels": dict(tally.labels.most_common()),
        "stages": {stage: _rounded(summary) for stage, summary in meter.stages().items()},
    }


def summary_table(meter: LatencyMeter) -> TextTable:
    """Return the latencies as a table with one row per stage."""
    rows = []
    for stage, summary in meter.stages().items():
        values = (summary.p50_ms, summary.p90_ms, summary.p99_ms, summary.max_ms)
        rows.append((_TITLES.get(stage, stage), *(f"{value:.2f}" for value in values)))
    return TextTable(("ms per frame", "p50", "p90", "p99", "max"), rows, text=("ms per frame",))


def rate_line(meter: LatencyMeter) -> str:
    """Return the number of frames, the dropped frames per stage and the frame rate."""
    where = ", ".join(f"{count} after {stage}" for stage, count in meter.dropped_by_stage.items() if count)
    dropped = f", {meter.dropped} dropped ({where})" if meter.dropped else ""  # "9 dropped (7 after capture, …)"
    return f"{meter.frames} frames{dropped}, {meter.fps:.1f} frames/s"


def count_lines(meter: LatencyMeter, tally: Tally) -> str:
    """Return the number of faces or images and, on a second line, their labels with counts."""
    labels = ", ".join(f"{label} {count}" for label, count in tally.labels.most_common())
    faces = f"faces: {tally.faces} in {tally.frames_with_faces} of {meter.frames} frames"
    counted = faces if tally.subject == "face" else f"images: {tally.faces}"
    if tally.classified < tally.faces:
        counted += f", {tally.classified} classified"
    text = f"{counted}\nlabels: {labels}" if labels else counted
    # Labels come from a model file and may contain terminal escapes.
    return "".join(char if char == "\n" or char.isprintable() else "?" for char in text)


def _rounded(summary: LatencySummary) -> dict[str, float]:
    """Return the statistics by name, rounded to microseconds."""
    return {name: round(value, 3) for name, value in asdict(summary).items()}
