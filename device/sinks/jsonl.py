"""Results as JSON lines: one object per frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.device.sink import STDOUT, Sink, SinkOptions
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.detections import Face, FrameResult
    from edgekit.device.sinks.context import RunContext


@dataclass(frozen=True, kw_only=True)
class JsonLinesOptions(SinkOptions):
    """Options of JSON lines."""

    title = "Results"

    jsonl: str | None = option("--jsonl", "Write one JSON object per frame; - is stdout.", metavar="FILE|-", main=True)

    def files(self) -> list[Path]:
        """Return the file."""
        return [] if self.jsonl in (None, STDOUT) else [Path(str(self.jsonl))]

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink."""
        from edgekit.device.sinks.records import RecordSink

        return None if self.jsonl is None else RecordSink("jsonl", self.jsonl, run, _line)


def _line(result: FrameResult) -> tuple[str, int]:
    return json.dumps(as_document(result), allow_nan=False) + "\n", 1


def as_document(result: FrameResult) -> dict[str, Any]:
    """Return the JSON document of one frame.

    For a model of whole images the document has "subject", and "results" instead of "faces": one entry, which is the
    frame or its region, or one for each zone.

    Values are rounded: seconds and probabilities to six decimals, scores to four, milliseconds to three, boxes (pixels)
    to two.
    """
    is_of_faces = result.subject == "face"
    fields: dict[str, Any] = {
        "sequence": result.sequence,
        "file": result.file,
        "subject": None if is_of_faces else result.subject,
        "monotonic_s": round(result.monotonic_s, 6),
        "wall_s": round(result.wall_s, 6),
        "clock_synchronised": None if result.clock_synchronised else False,
        "position_s": None if result.position_s is None else round(result.position_s, 6),
        "frame_wh": list(result.frame_wh),
        "age_ms": round(result.age_ms, 3),
        "stage_ms": {stage: round(duration, 3) for stage, duration in result.stage_ms.items()},
        "faces" if is_of_faces else "results": [_face(face) for face in result.faces],
        "health": None if result.health is None else dict(result.health),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _face(face: Face) -> dict[str, Any]:
    """Return the JSON document of one face, or of one image."""
    document: dict[str, Any] = {
        "track_id": face.track_id,
        "detected": face.detected,
        "classified": face.classified,
        "xyxy": [round(float(value), 2) for value in face.xyxy],
        "score": round(face.score, 4),
        "label": face.label,
        "probability": round(face.probability, 6),
        "probabilities": {label: round(value, 6) for label, value in face.probabilities.items()},
        "raw_probabilities": {label: round(value, 6) for label, value in face.raw_probabilities.items()},
    }
    if face.distance is not None:
        document["distance"] = round(face.distance, 6)
    if face.zone is not None:
        document["zone"] = face.zone
    return document
