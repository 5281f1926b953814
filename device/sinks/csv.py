"""Results as CSV: one row per face, or per frame for a model of whole images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import STDOUT, Sink, SinkOptions
from edgekit.errors import InputError
from edgekit.options import option
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.sinks.context import RunContext

_COLUMNS = (
    "sequence", "monotonic_s", "wall_s", "face", "track_id", "x0", "y0", "x1", "y1", "score", "label", "probability",
    "classified",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CsvOptions(SinkOptions):
    """Options of CSV."""

    title = "Results"

    csv: Path | None = option("--csv", "Write one row per face.", metavar="FILE", main=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if str(self.csv) == STDOUT:
            raise InputError("--csv takes a file: for results on stdout write --jsonl -")

    def files(self) -> list[Path]:
        """Return the file."""
        return [] if self.csv is None else [self.csv]

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink; after the common columns, a row has the probabilities and the image file."""
        if self.csv is None:
            return None
        from edgekit.device.sinks.records import RecordSink

        labels = run.contract.labels
        columns = [f"{kind}_{printable(label)}" for kind in ("p", "raw_p") for label in labels]
        columns += ["distance"] if run.contract.distance else []
        columns += ["zone"] if run.zones else []
        is_video_file = not run.source.live and run.source.fps is not None
        columns += ["position_s"] if is_video_file else []
        header = _text([[*_COLUMNS, *columns, "file"]])
        return RecordSink("csv", str(self.csv), run, partial(_records, labels, is_video_file), header)


def _records(labels: Sequence[str], is_video_file: bool, result: FrameResult) -> tuple[str, int]:
    return _text(_rows(labels, is_video_file, result)), len(result.faces)


def _rows(labels: Sequence[str], is_video_file: bool, result: FrameResult) -> Iterator[list[object]]:
    """Yield a row for each face, with the values of the columns of `CsvOptions.open`."""
    for index, face in enumerate(result.faces):
        row: list[object] = [
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
        ]
        row += [f"{face.probabilities[label]:.6f}" for label in labels]
        row += [f"{face.raw_probabilities[label]:.6f}" for label in labels]
        if face.distance is not None:
            row.append(f"{face.distance:.6f}")
        if face.zone is not None:
            row.append(face.zone)
        if is_video_file:
            row.append("" if result.position_s is None else f"{result.position_s:.6f}")
        yield [*row, _as_text(result.file or "")]


def _text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV."""
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _as_text(value: str) -> str:
    """Return a label or file name that a spreadsheet does not evaluate as a formula, without control characters."""
    value = printable(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
