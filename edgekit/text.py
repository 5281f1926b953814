"""Escaping of text from files, boards and networks before it is printed on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with control characters replaced by escapes such as `\\x1b`; newlines are kept."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))
