"""Text on a terminal: escaping of what comes from files, boards and networks. Order of file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath


def printable(text: str) -> str:
    """Return `text` with control characters replaced by escapes such as `\\x1b`; newlines are kept."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 thread" or "1,024 threads"; the default plural adds an s."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def first_of(texts: Sequence[str], most: int) -> str:
    """Return the first `most` texts, separated by commas, with an ellipsis if there are more."""
    return ", ".join([*texts[:most], *(["…"] if len(texts) > most else [])])


def natural_key(path: PurePath) -> list[tuple[int, str]]:
    """Return a key for sorting that puts frame_9 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))
