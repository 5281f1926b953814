"""The summary of a run, as text and as a JSON document."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from edgekit.contract import Subject
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.pipeline.latency import LatencyMeter, LatencySummary
from edgekit.device.sink import Sink
from edgekit.text_table import TextTable

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
    dropped = f", {meter.dropped} dropped ({where})" if meter.dropped else ""
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
    return {name: round(value, 3) for name, value in asdict(summary).items()}
