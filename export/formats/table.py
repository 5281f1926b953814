"""The table of a model's formats, and the rule by which one of them is recommended.

Of the files whose accuracy drops by at most `MAX_DROP` plus two standard errors of the paired difference, the fastest
is recommended. If the 95 % interval of the ratio of two medians contains 1, the two files count as equally fast. Of
equally fast files, the smallest is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.document import BenchmarkReport, BoardResult, CellResult, Kind
from edgekit.report.statistics import ratio_interval, wilson_interval

SCHEMA = "edgekit.formats/1.0"
# Largest drop of accuracy of a recommended file, 0..1, as in `edgekit verify`.
MAX_DROP = 0.005
# The measured kind.
KIND: Kind = "net"


@dataclass(frozen=True)
class FormatFile:
    """A file of one format; `drop` states in one line that its accuracy drops by more than allowed, else None."""

    name: str
    path: Path
    size_bytes: int
    evaluation: Evaluation
    drop: str | None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, 0..1."""
        return wilson_interval(self.evaluation.correct, self.evaluation.total)


@dataclass(frozen=True)
class FormatRow:
    """A file with a number of threads, as measured on a board."""

    file: FormatFile
    cell: CellResult


@dataclass(frozen=True)
class FormatTable:
    """The rows of one board, and which is recommended, with the reason in one line."""

    board: BoardResult
    rows: tuple[FormatRow, ...]
    recommended: FormatRow
    reason: str


@dataclass(frozen=True)
class FormatsReport:
    """Result of `benchmark_formats`; `left_out` has the reason for each format that was not measured."""

    model: str
    target: str
    dataset: str
    split: str
    files: tuple[FormatFile, ...]
    left_out: Mapping[str, str]
    report: BenchmarkReport

    @property
    def tables(self) -> tuple[FormatTable, ...]:
        """One table per board."""
        return tuple(_table(board, self.files) for board in self.report.boards)

    def as_document(self) -> dict[str, Any]:
        """Return the document of `edgekit bench --formats --json`."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "target": self.target,
            "dataset": self.dataset,
            "split": self.split,
            "formats": [_format_document(file) for file in self.files],
            "left_out": dict(self.left_out),
            "recommended": [
                {
                    "board": table.board.label,
                    "format": table.recommended.file.name,
                    "threads": table.recommended.cell.intra_op_threads,
                    "reason": table.reason,
                }
                for table in self.tables
            ],
            "benchmark": self.report.as_document(),
        }


def _table(board: BoardResult, files: Sequence[FormatFile]) -> FormatTable:
    cells = sorted((cell for cell in board.cells if cell.kind == KIND), key=lambda cell: cell.intra_op_threads)
    rows = tuple(FormatRow(file, cell) for file in files for cell in cells if cell.model == file.name)
    best, reason = recommended(rows)
    return FormatTable(board, rows, best, reason)


def recommended(rows: Sequence[FormatRow]) -> tuple[FormatRow, str]:
    """Return the row to use and the reason, by the rule of this module; at least one row has no `drop`."""
    accurate = [row for row in rows if row.file.drop is None]
    fastest = min(accurate, key=lambda row: row.cell.latency.p50_ms)
    equal = [row for row in accurate if row is fastest or not _is_slower(row.cell, fastest.cell)]
    best = min(equal, key=lambda row: (row.file.size_bytes, row.cell.latency.p50_ms))
    speed = "the fastest"
    if best is not fastest:
        speed = f"as fast as {fastest.file.name} within the intervals and the smallest such file"
    elif fastest.cell.median_interval_ms is None:
        speed = "the fastest, without intervals (fewer than three processes)"
    return best, f"{speed}, of those whose accuracy drops by at most {100 * MAX_DROP:g} points plus two standard errors"


def _is_slower(cell: CellResult, fastest: CellResult) -> bool:
    own, other = cell.median_interval_ms, fastest.median_interval_ms
    if own is None or other is None:
        return True
    return ratio_interval(fastest.latency.p50_ms, other, cell.latency.p50_ms, own)[0] > 1


def _format_document(file: FormatFile) -> dict[str, Any]:
    return {
        "format": file.name,
        "size_bytes": file.size_bytes,
        "correct": file.evaluation.correct,
        "total": file.evaluation.total,
        "accuracy": file.evaluation.accuracy,
        "accuracy_interval": list(file.accuracy_interval),
        "drop": file.drop,
    }
