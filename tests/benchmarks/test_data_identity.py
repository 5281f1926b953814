"""Identity of data, by which benchmarks reuse finished results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.parametrize(
    ("name", "content", "is_same"),
    [("a.png", "BB", True), ("a.png", "bbb", False), ("persons.csv", "BB", False), ("b.png", "bb", False)],
    ids=["pixels", "size", "table", "name"],
)
def test_the_identity_of_a_folder_changes_with_names_sizes_and_tables(
    load: Callable[[str], ModuleType], tmp_path: Path, name: str, content: str, is_same: bool
) -> None:
    data_identity = load("data_identity").data_identity
    for folder in ("first", "second"):
        (tmp_path / folder / "happy").mkdir(parents=True)
        for file in ("a.png", "persons.csv"):
            (tmp_path / folder / "happy" / file).write_text("bb")
    (tmp_path / "second" / "happy" / name).write_text(content)
    assert (data_identity(tmp_path / "first") == data_identity(tmp_path / "second")) is is_same
