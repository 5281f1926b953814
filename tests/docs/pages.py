"""Pages of the documentation: their text, fenced blocks and sections."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import reference_pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"^( *)(?:<!-- not run: (?P<reason>[^\n]+) -->\n\1)?```(?P<language>\w*)\n(?P<body>.*?)^\1```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` comes from a comment `<!-- not run: REASON -->` on the line before it."""

    language: str
    body: str
    reason: str | None


def pages() -> list[Path]:
    """Return README.md and all pages of docs/, without generated ones."""
    written = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name not in ("prompts", "study")]
    return [ROOT / "README.md", *(path for path in written if str(path.relative_to(ROOT)) not in reference_pages.PAGES)]


def blocks(text: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of a text; with `languages`, only the blocks in these languages."""
    found = [
        Block(match["language"], textwrap.dedent(match["body"]), match["reason"]) for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(text: str) -> str:
    """Return a text without fenced blocks and inline code."""
    return re.sub(r"`[^`]+`", "", _FENCE.sub("", text))


def command_lines(block: str) -> Iterator[str]:
    """Yield the lines of a shell block: continued lines joined, comments removed."""
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        text = re.sub(r"(^|\s+)#.*", "", line).strip()
        if text:
            yield text


def section(text: str, title: str) -> str:
    """Return the text below a heading of the second level, up to the next one."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found
