"""No text contains a banned word, and every page is in the index and in the navigation."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
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
    r"(?:do|does|did|can) ?not (?:say|tell|ask|hear|know|speak)": "does not state, print, read, contain, ...",
    r"is told|are told": "is reported",
    r"no longer|used to be|once believed": "what is; the history is git's",
    r"e\.g\.|i\.e\.|etc\.": "such as; that is; and so on",
}
_ANY = re.compile("|".join(BANNED), re.IGNORECASE)


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word(page: Path) -> None:
    assert _banned_words(prose(page.read_text())) == []


@pytest.mark.parametrize(
    "folder", ["benchmarks", "device", "edgekit", "examples", "export", "models", "tests", "tools"]
)
def test_no_banned_word_in_docstrings_comments_messages_and_help(folder: str) -> None:
    # Links such as edgekit/device lead to folders that have a case of their own.
    files = [path for path in (ROOT / folder).rglob("*.py") if path.resolve() == path != Path(__file__)]
    assert files
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        for text in _texts(path.read_text())
        for word in _banned_words(prose(text))
    ]
    assert found == []


def _banned_words(text: str) -> list[str]:
    if not _ANY.search(text):  # as almost always
        return []
    return [
        f"{match[0]!r}: write {cure}"
        for words, cure in BANNED.items()
        for match in re.finditer(rf"(?<![\w-])(?:{words})(?!\w)", text, re.IGNORECASE)
    ]


def _texts(source: str) -> Iterator[str]:
    """Yield the docstrings, other texts of several words, and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_every_page_is_in_the_index_and_in_the_site_navigation() -> None:
    index, site = (DOCS / "index.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    names = [path.relative_to(DOCS).as_posix() for path in pages()[1:] if path.name != "index.md"]
    assert [name for name in names if f"({name})" not in index] == []
    assert [name for name in names if f"- {name}\n" not in site] == []
