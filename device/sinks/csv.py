"""Results as CSV: one row per face, or per frame for a model of whole images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.lines import Lines
from edgekit.text import printable

_COLUMNS = (
    "sequence", "monotonic_s", "wall_s", "face", "track_id", "x0", "y0", "x1", "y1", "score", "label", "probability",
    "classified",
)  # fmt: skip


class CsvSink(Sink):
    """Writes a header and one row per face.

    The last columns are the probability of each label, smoothed and raw (see `Face`), and the image file.
    """

    def __init__(self, lines: Lines, labels: Sequence[str]) -> None:
        columns = [f"{kind}_{printable(label)}" for kind in ("p", "raw_p") for label in labels]
        lines.header = _rows([[*_COLUMNS, *columns, "file"]])
        self._lines = lines
        self.accounts = (lines.account,)
        self._labels = labels

    def __exit__(self, *exception: object) -> None:
        self._lines.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append one row for each face of the frame."""
        del frame
        self._lines.write(
            _rows(
                [
                    result.sequence,
                    f"{result.monotonic_s:.6f}",
                    f"{result.wall_s:.6f}",
                    index,
                    "" if face.track_id is None else face.track_id,
                    *(f"{value:.2f}" for value in face.xyxy),
                    f"{face.score:.4f}",
                    _as_text(face.label),
                    f"{face.probability:.6f}",
                    int(face.classified),
                    *(f"{face.probabilities[label]:.6f}" for label in self._labels),
                    *(f"{face.raw_probabilities[label]:.6f}" for label in self._labels),
                    _as_text(result.file or ""),
                ]
                for index, face in enumerate(result.faces)
            ),
            len(result.faces),
        )


def _rows(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _as_text(value: str) -> str:
    """Return a label or file name that a spreadsheet does not evaluate as a formula, without control characters."""
    value = printable(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
