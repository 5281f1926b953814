"""The fit of the boards' rooflines, on points of a known machine and on the published latencies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekit.export.profiling.roofline import roofline_of, rooflines
from edgekit.known_boards import KNOWN_BOARDS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fitting(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("roofline_fit")


@pytest.fixture
def published(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("published_latencies")


def points(fitting: ModuleType, macs_per_s: float, bytes_per_s: float, count: int, noise: float = 0.0) -> list[Any]:
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        macs = generator.uniform(1e6, 3e8, 20)
        moved = generator.uniform(1e4, 3e7, 20)
        blank = fitting.Point(1.0, macs, moved)
        factor = math.exp(generator.normal(0, noise))
        made.append(fitting.Point(fitting.predicted_ms(blank, macs_per_s, bytes_per_s) * factor, macs, moved))
    return made


def test_the_fit_finds_the_machine_its_points_come_from(fitting: ModuleType) -> None:
    result = fitting.fit(points(fitting, 5e9, 1.5e9, 12))
    assert result.macs_per_s == pytest.approx(5e9, rel=0.1)
    assert result.bytes_per_s == pytest.approx(1.5e9, rel=0.1)
    assert (result.coverage, result.reason) == (1.0, None)
    assert result.typical_error == pytest.approx(1.0, abs=0.05)


def test_shipped_figures_cover_what_they_promise_or_say_why_not(fitting: ModuleType) -> None:
    assert {(each.board, each.precision, each.threads) for each in rooflines()} == {
        (board.name, precision, threads)
        for board in KNOWN_BOARDS.values()
        for precision in ("fp32", "int8")
        for threads in (1, 4)
    }
    for each in rooflines():
        enough = each.rows >= fitting.LEAST_ROWS and each.coverage >= fitting.LEAST_COVERAGE
        assert (each.reason is None) is enough, each


def test_shipped_figures_follow_from_the_published_rows_and_the_stored_counts(
    fitting: ModuleType, published: ModuleType
) -> None:
    nets = json.loads((ROOT / "benchmarks/export/board_estimates/nets.json").read_text())
    rows = [
        row
        for row in published.published_latencies()
        if (row.board, row.precision, row.threads, row.engine) == ("Raspberry Pi 3B+", "fp32", 4, "ncnn")
        and row.model in nets
    ]
    made = [
        fitting.Point(row.avg_ms, *(np.array(nets[row.model][key], np.float64) for key in ("macs", "moved_bytes")))
        for row in rows
    ]
    found, shipped = fitting.fit(made), roofline_of("Raspberry Pi 3B+", "fp32", 4)
    assert len(rows) == shipped.rows
    assert found.macs_per_s == pytest.approx(shipped.macs_per_s, rel=1e-3)
    assert found.bytes_per_s == pytest.approx(shipped.bytes_per_s, rel=1e-3)
    assert found.coverage == pytest.approx(shipped.coverage, abs=1e-3)
