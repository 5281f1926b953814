"""The pages contain no banned word, and every page is in the index and in the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, pages, prose

# Banned words as regular expressions, and their replacements.
BANNED = {
    r"laps?": "stage time",
    r"finders?": "detection and tracking",
    r"picture time": "presentation time",
    r"upkeep": "runtime monitor",
    r"borrowed nets?": "external nets",
    r"lessons?": "distillation targets",
    r"prompt injections?": "prompt insertion",
    r"says|tells|asks|hears|knows|speaks|forgets|hopes|grows old": "states, prints, reads, contains, ...",
    r"is told|are told": "is reported",
    r"no longer|used to be|once believed": "what is; the history is git's",
    r"e\.g\.|i\.e\.|etc\.": "such as; that is; and so on",
}
# Pages that are generated from docstrings and help texts, which are reviewed separately.
GENERATED = {"commands.md", "python-api.md"}


@pytest.mark.parametrize(
    "page", [path for path in pages() if path.name not in GENERATED], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_banned_word(page: Path) -> None:
    text = prose(page.read_text())
    found = [
        f"{match[0]!r}: write {cure}"
        for words, cure in BANNED.items()
        for match in re.finditer(rf"(?<![\w-])(?:{words})(?!\w)", text, re.IGNORECASE)
    ]
    assert found == []


def test_every_page_has_one_kind() -> None:
    folders = {path.parent.relative_to(DOCS).as_posix() for path in pages()[1:]}
    assert folders == {".", "tutorials", "how-to", "reference", "explanation"}
    assert [path.name for path in DOCS.glob("*.md")] == ["index.md"]


def test_every_page_is_in_the_index_and_in_the_site_navigation() -> None:
    index, site = (DOCS / "index.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    names = [path.relative_to(DOCS).as_posix() for path in pages()[1:] if path.name != "index.md"]
    assert [name for name in names if f"({name})" not in index] == []
    assert [name for name in names if f"- {name}\n" not in site] == []
