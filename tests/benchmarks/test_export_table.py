"""The tables of exported files show counts and estimates, and mark missing ones."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

NOTHING = {"a53": None, "a72": None, "a76": None}


def test_files_with_and_without_counts_have_a_row(load: Callable[[str], ModuleType]) -> None:
    row = {"file": "plain", "size_bytes": 1_785_970, "correct": 3, "total": 4, "time_ratio": 0.9172}
    row |= {"counts": NOTHING, "estimate_ms": NOTHING}
    counts = NOTHING | {"a76": {"instructions": 27_064_335, "l2_misses": 48_158, "l3_misses": 1_234}}
    estimates = NOTHING | {"a53": (6.04, 18.11)}
    counted = {**row, "file": "quick", "time_ratio": None, "counts": counts, "estimate_ms": estimates}
    files, costs = load("export_table").as_markdown([row, counted]).split("\n\n")
    assert files.splitlines()[2:] == [
        "| plain | 1,785,970 | 75.00% | 0.917 |",
        "| quick | 1,785,970 | 75.00% | not measured |",
    ]
    nothing, unknown = "not counted | not counted", "no estimate"
    assert costs.splitlines()[2:] == [
        f"| plain | {nothing} | {unknown} | {nothing} | {unknown} | {nothing} | {unknown} |",
        f"| quick | {nothing} | 6.0 to 18.1 | {nothing} | {unknown} | 27.06 | 0.0012 | {unknown} |",
    ]
