"""The roofline: by hand, the fit on points of a known machine, and what the shipped figures rest on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from edgekit.export.profiling.roofline import (
    LEAST_COVERAGE,
    SPREAD,
    Estimate,
    LayerWork,
    Roofline,
    estimate,
    roofline_of,
    rooflines,
)
from edgekit.export.profiling.roofline_fit import Point, fit, predicted_ms
from edgekit.latencies import KNOWN_BOARDS, published_latencies

ROOT = Path(__file__).parents[3]


def machine(macs_per_s: float, bytes_per_s: float, reason: str | None = None) -> Roofline:
    return Roofline("a board", "fp32", 1, 1000, macs_per_s, bytes_per_s, 10, 1.0, 1.1, reason)


def test_a_layer_takes_the_longer_of_its_arithmetic_and_its_traffic() -> None:
    layers = [LayerWork("computes", 4_000_000, 1000), LayerWork("moves", 1000, 3_000_000)]
    found = estimate(layers, machine(1e9, 1e9))
    assert found is not None
    assert found.layers_ms == pytest.approx((4.0, 3.0))
    assert found.middle_ms == pytest.approx(7.0)
    assert found.memory_share == pytest.approx(3 / 7)
    assert found.high_ms / found.low_ms == pytest.approx(3)
    assert found.low_ms < found.middle_ms < found.high_ms


def test_no_figures_no_estimate() -> None:
    assert estimate([LayerWork("a", 1, 1)], machine(1e9, 1e9, "too little is known")) is None
    nowhere = roofline_of("a board of my own", "fp32", 3)
    assert nowhere.reason == "no latency of fp32 with 3 threads is published for it"
    assert estimate([LayerWork("a", 1, 1)], nowhere) is None


def points(macs_per_s: float, bytes_per_s: float, count: int, noise: float = 0.0) -> list[Point]:
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        macs = generator.uniform(1e6, 3e8, 20)
        moved = generator.uniform(1e4, 3e7, 20)
        blank = Point(1.0, macs, moved)
        factor = math.exp(generator.normal(0, noise))
        made.append(Point(predicted_ms(blank, macs_per_s, bytes_per_s) * factor, macs, moved))
    return made


def test_the_fit_finds_the_machine_its_points_come_from() -> None:
    result = fit(points(5e9, 1.5e9, 12))
    assert result.macs_per_s == pytest.approx(5e9, rel=0.1)
    assert result.bytes_per_s == pytest.approx(1.5e9, rel=0.1)
    assert (result.coverage, result.reason) == (1.0, None)
    assert result.typical_error == pytest.approx(1.0, abs=0.05)


def test_a_point_that_does_not_belong_is_not_covered() -> None:
    made = points(5e9, 1.5e9, 9)
    made.append(Point(made[0].measured_ms * 5, made[0].macs, made[0].moved_bytes))
    result = fit(made)
    assert result.coverage == pytest.approx(0.9)
    # Measured is five times what the others say, up to what it takes out of the fit.
    assert result.errors[-1] == pytest.approx(5, rel=0.1)


def test_too_few_and_too_scattered_points_give_a_reason() -> None:
    assert fit(points(5e9, 1.5e9, 2)).reason == "only 0 published nets, 3 are needed"
    assert "lie inside the interval predicted" in str(fit(points(5e9, 1.5e9, 12, noise=1.5)).reason)


def test_shipped_figures_cover_what_they_promise_or_say_why_not() -> None:
    assert {(each.board, each.precision, each.threads) for each in rooflines()} == {
        (board.name, precision, threads)
        for board in KNOWN_BOARDS.values()
        for precision in ("fp32", "int8")
        for threads in (1, 4)
    }
    for each in rooflines():
        assert (each.reason is None) is (each.rows >= 3 and each.coverage >= LEAST_COVERAGE), each


def test_shipped_figures_follow_from_the_published_rows_and_the_stored_counts() -> None:
    nets = json.loads((ROOT / "benchmarks/export/board_estimates/nets.json").read_text())
    rows = [
        row
        for row in published_latencies()
        if (row.board, row.precision, row.threads, row.engine) == ("Raspberry Pi 3B+", "fp32", 4, "ncnn")
        and row.model in nets
    ]
    made = [
        Point(row.avg_ms, *(np.array(nets[row.model][key], np.float64) for key in ("macs", "moved_bytes")))
        for row in rows
    ]
    found, shipped = fit(made), roofline_of("Raspberry Pi 3B+", "fp32", 4)
    assert len(rows) == shipped.rows
    assert found.macs_per_s == pytest.approx(shipped.macs_per_s, rel=1e-3)
    assert found.bytes_per_s == pytest.approx(shipped.bytes_per_s, rel=1e-3)
    assert found.coverage == pytest.approx(shipped.coverage, abs=1e-3)


def test_another_engines_rows_lie_in_the_interval() -> None:
    document = json.loads((ROOT / "export/profiling/board_rooflines.json").read_text())
    factors = [test["factor"] for test in document["tests"]]
    assert len(factors) >= 3
    assert all(1 / SPREAD < factor < SPREAD for factor in factors)


def test_every_published_row_has_an_address() -> None:
    rows = published_latencies()
    assert len(rows) > 500
    assert all(row.source.startswith("https://github.com/") and row.avg_ms > 0 for row in rows)
    assert {board.name for board in KNOWN_BOARDS.values()} <= {row.board for row in rows}


def test_an_estimate_is_made_of_plain_numbers() -> None:
    found = estimate([LayerWork("a", 10**9, 10**6)], roofline_of("Raspberry Pi 3B+", "fp32", 1))
    assert isinstance(found, Estimate)
    # A thousand million multiply-accumulates: between resnet18's 1.8 and squeezenet's 0.39, 380 and 126 ms there.
    assert 126 < found.middle_ms < 380
