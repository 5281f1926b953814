"""Escaping of text from files, boards and networks before it is printed on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with control characters replaced by escapes such as `\\x1b`; newlines are kept."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 thread" or "2 threads"; the default plural adds an s."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))
