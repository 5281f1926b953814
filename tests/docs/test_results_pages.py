"""Each section of the results that has a table states a command or test, a date and the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

PARTS = {
    "command": r"\b(?:python|edgekit|make) \S|tests/",
    "date": r"\b20\d\d-\d\d-\d\d\b",
    "machine": r"machine\s+not\s+recorded|Xeon|EPYC|emulated",
}


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("results*.md")), ids=lambda path: path.stem)
def test_each_section_with_a_table_states_its_command_date_and_machine(page: Path) -> None:
    sections = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)[1:]
    with_table = [section for section in sections if re.search(r"^\| ---", section, re.MULTILINE)]
    assert with_table
    missing = [
        f"{section.splitlines()[0]}: {name}"
        for section in with_table
        for name, words in PARTS.items()
        if not re.search(words, section, re.IGNORECASE)
    ]
    assert missing == []
