"""Comparison by pairs of runs: the function that runs first alternates, and each pair has a ratio."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_pairs_alternate_and_ratios_are_those_of_neighbours(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, now_s, called = load("pairs"), [0.0], []
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now_s[0])

    def work(name: str, seconds: list[float]) -> Callable[[int], None]:
        def run(pair: int) -> None:
            called.append(f"{name}{pair}")
            now_s[0] += seconds[pair]

        return run

    # In the second pair the machine is slow; in the third, only one of the functions is slow.
    result = pairs.time_pairs(work("a", [1, 10, 1]), work("b", [2, 20, 8]), 3)
    assert called == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert result == pairs.Pairs(first_s=1, second_s=8, ratio=2, ratios=(2, 2, 8))
