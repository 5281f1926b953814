"""Tables of text: alignment, folding, and control characters of foreign text."""

from __future__ import annotations

from edgekit.text import TextTable


def test_text_is_aligned_left_and_numbers_right() -> None:
    table = TextTable(("name", "n"), [("a", "1"), ("longer", "1,000")], text=("name",))
    assert table.lines() == ["name        n", "a           1", "longer  1,000"]


def test_the_widest_column_of_text_is_folded_and_numbers_are_whole() -> None:
    rows = [("word " * 9, "short", "123456789"), ("x" * 50, "", "1")]
    lines = TextTable(("name", "kind", "n"), rows, text=("name", "kind")).lines(40)
    assert max(map(len, lines)) == 40
    assert [line for line in lines if line.endswith(" 123456789")]
    assert sum(line.count("word") for line in lines) == 9
    assert sum(line.count("x") for line in lines) == 50


def test_a_cell_is_one_printable_line() -> None:
    (_, row) = TextTable(("name",), [("\x1b[2Ja\nb",)], text=("name",)).lines()
    assert row == r"\x1b[2Ja b"
