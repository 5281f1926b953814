"""The tests that docs/reference/what-can-be-lost.md names exist, and each row of its tables has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/reference/what-can-be-lost.md").read_text()
TESTS = dict(re.findall(r"^\| (\w+) \| `([^`]+::[^`]+)` \|$", TEXT, re.MULTILINE))


def test_every_test_that_the_page_names_exists() -> None:
    assert TESTS
    for place in TESTS.values():
        path, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), place


def test_every_row_names_a_test_and_every_test_has_a_row() -> None:
    rows = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 5]
    cells = [row[-1].strip() for row in rows if row[-1].strip() not in ("test", "---")]
    named = [name for cell in cells for name in cell.split(", ")]
    assert len(cells) > 15
    assert set(named) == set(TESTS)
