"""The rule that recommends a format, on constructed rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.export.formats import FormatFile, FormatRow, recommended
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.document import CellResult
from edgekit.report.schema import read_document

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cell() -> CellResult:
    return read_document(ROOT / "benchmarks/results/vm-epyc-2.json").boards[0].cells[0]


@pytest.fixture
def row(cell: CellResult):  # type: ignore[no-untyped-def]
    """Return a function that makes a row; `percent` is half of the median's interval (None: no interval)."""

    def make(name: str, p50_ms: float, percent: float | None, size_bytes: int, drop: str | None = None) -> FormatRow:
        interval = None if percent is None else (p50_ms * (1 - percent / 100), p50_ms * (1 + percent / 100))
        latency = msgspec.structs.replace(cell.latency, p50_ms=p50_ms)
        file = FormatFile(
            name, Path(name), size_bytes, Evaluation(("a",), np.zeros(1, np.int64), np.zeros((1, 1))), drop
        )
        return FormatRow(file, msgspec.structs.replace(cell, latency=latency, median_interval_ms=interval))

    return make


def test_the_fastest_is_recommended(row) -> None:  # type: ignore[no-untyped-def]
    best, reason = recommended([row("float32", 2, 1, 900), row("int8-qdq", 1, 1, 300), row("fp16", 3, 1, 100)])
    assert best.file.name == "int8-qdq"
    assert reason == "the fastest, of those whose accuracy drops by at most 0.5 points plus two standard errors"


def test_a_file_whose_accuracy_drops_is_not(row) -> None:  # type: ignore[no-untyped-def]
    best, _ = recommended([row("float32", 2, 1, 900), row("int8-qdq", 1, 1, 300, drop="accuracy drops by 9 %")])
    assert best.file.name == "float32"


def test_of_equally_fast_ones_the_smallest_is(row) -> None:  # type: ignore[no-untyped-def]
    rows = [row("float32", 2, 1, 900), row("int8-qdq", 1, 4, 300), row("int8-qoperator", 1.02, 4, 200)]
    best, reason = recommended(rows)
    assert best.file.name == "int8-qoperator"
    assert reason.startswith("as fast as int8-qdq within the intervals and the smallest such file")
    # A median that is 20 % higher is outside the intervals.
    best, _ = recommended([*rows[:2], row("int8-qoperator", 1.2, 4, 200)])
    assert best.file.name == "int8-qdq"


def test_without_intervals_nothing_is_equally_fast(row) -> None:  # type: ignore[no-untyped-def]
    best, reason = recommended([row("float32", 1.0, None, 900), row("int8-qdq", 1.001, None, 300)])
    assert best.file.name == "float32"
    assert "without intervals (fewer than three processes)" in reason
