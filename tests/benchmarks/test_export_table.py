"""The table of exported files shows what was counted, and says where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_files_with_and_without_counts_have_a_row(load: Callable[[str], ModuleType]) -> None:
    row = {"file": "plain", "size_bytes": 1_785_970, "correct": 3, "total": 4, "time_ratio": 0.9172, "a53": None}
    row["estimate_ms"] = None
    counted = {**row, "file": "a53", "a53": {"instructions": 27_064_335, "l2_misses": 48_158}}
    counted["estimate_ms"] = (6.04, 18.11)
    assert load("export_table").as_markdown([row, counted]).splitlines()[2:] == [
        "| plain | 1,785,970 | 75.00% | 0.917 | not counted | not counted | no estimate |",
        "| a53 | 1,785,970 | 75.00% | 0.917 | 27.06 | 0.0482 | 6.0 to 18.1 |",
    ]
