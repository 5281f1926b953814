"""Text from elsewhere (files, boards, networks) made safe to show on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with control characters (terminal escapes among them) shown as escapes; newlines stay."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))
