"""Results as JSON lines: one object per frame."""

from __future__ import annotations

import json
from typing import Any

from edgekit.device.detections import Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.lines import Lines


class JsonLinesSink(Sink):
    """Writes `as_document` of every frame as one line."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.accounts = (lines.account,)

    def __exit__(self, *exception: object) -> None:
        self._lines.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame's line."""
        del frame
        self._lines.write(json.dumps(as_document(result), allow_nan=False) + "\n")


def as_document(result: FrameResult) -> dict[str, Any]:
    """Return the JSON document of one frame.

    For a model of whole images the document has "subject", and the single entry of "faces" is the frame or its region.

    Values are rounded: seconds and probabilities to six decimals, scores to four, milliseconds to three, boxes (pixels)
    to two.
    """
    file = {} if result.file is None else {"file": result.file}
    subject = {} if result.subject == "face" else {"subject": result.subject}
    clock = {} if result.clock_synchronised else {"clock_synchronised": False}
    health = {} if result.health is None else {"health": dict(result.health)}
    return {
        "sequence": result.sequence,
        **file,
        **subject,
        "monotonic_s": round(result.monotonic_s, 6),
        "wall_s": round(result.wall_s, 6),
        **clock,
        "frame_wh": list(result.frame_wh),
        "age_ms": round(result.age_ms, 3),
        "stage_ms": {stage: round(duration, 3) for stage, duration in result.stage_ms.items()},
        "faces": [_face(face) for face in result.faces],
        **health,
    }


def _face(face: Face) -> dict[str, Any]:
    return {
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
