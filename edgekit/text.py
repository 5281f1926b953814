"""Text on a terminal: escaping of what comes from files, boards and networks, counts, tables; order of file names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath


def printable(text: str) -> str:
    """Return `text` with control characters replaced by escapes such as `\\x1b`; newlines are kept."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 thread" or "1,024 threads"; the default plural adds an s."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def first_of(texts: Sequence[str], most: int) -> str:
    """Return the first `most` texts, separated by commas, with an ellipsis if there are more."""
    ellipsis = ["…"] if len(texts) > most else []
    return ", ".join([*texts[:most], *ellipsis])


def natural_key(path: PurePath) -> list[tuple[int, str]]:
    """Return a key for sorting that puts frame_9 before frame_10: digits compare as numbers, other text as text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return printable(" ".join(text.split()))


_MIN_FOLDED = 8


@dataclass(frozen=True)
class TextTable:
    """A table with one line of titles.

    Attributes:
        columns: Titles of the columns.
        rows: One text per column.
        text: The columns of text, which are aligned left; the others are numbers, aligned right.
        title: Line above the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Collection[str] = ()
    title: str = ""

    def lines(self, max_columns: int | None = None) -> list[str]:
        """Return the titles and the rows; the widest column of text is folded to fit them into `max_columns`."""
        cells = [[one_line(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        gap = "  "
        gaps = len(widths) - 1
        if max_columns is not None and sum(widths) + len(gap) * gaps > max_columns:
            gap = " "  # first the gaps are made narrower, then the column
            excess = sum(widths) + len(gap) * gaps - max_columns
            text_columns = [index for index, name in enumerate(self.columns) if name in self.text]
            widest = max(text_columns, key=lambda index: widths[index])
            # The narrower gaps alone may be enough.
            widths[widest] = max(widths[widest] - max(excess, 0), _MIN_FOLDED)
        lines = []
        for row in cells:
            # Each cell as lines of the column's width: several lines if it is folded.
            folded = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
            for parts in zip_longest(*folded, fillvalue=""):
                aligned = []
                for name, part, width in zip(self.columns, parts, widths, strict=True):
                    aligned.append(part.ljust(width) if name in self.text else part.rjust(width))
                lines.append(gap.join(aligned).rstrip())
        return lines
