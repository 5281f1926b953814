"""Roofline estimates: by hand, and with the shipped figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.export.profiling.roofline import Roofline, estimate, roofline_of

ROOT = Path(__file__).parents[3]


def test_a_layer_takes_the_longer_of_its_arithmetic_and_its_traffic() -> None:
    roofline = Roofline("a board", "fp32", 1, 1000, 1e9, 1e9, 10, 1.0, 1.1)
    found = estimate([4_000_000, 1000], [1000, 3_000_000], roofline)
    assert found.middle_ms == pytest.approx(7.0)
    assert found.memory_share == pytest.approx(3 / 7)
    assert found.high_ms / found.low_ms == pytest.approx(3)
    assert found.low_ms < found.middle_ms < found.high_ms


def test_an_estimate_is_made_of_plain_numbers() -> None:
    found = estimate([10**9], [10**6], roofline_of("Raspberry Pi 3B+", "fp32", 1))
    # 1 GMAC is between squeezenet (0.39 GMAC, 126 ms on this board) and resnet18 (1.8 GMAC, 380 ms).
    assert 126 < found.middle_ms < 380
