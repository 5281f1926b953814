"""A report as tables for a terminal."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.report import view

_LEFT = ("what", "engine", "marks")


def report_view(document: dict[str, Any]) -> Group:
    """Return a table a model for each board, the board above them, its state and what is amiss below."""
    parts: list[RenderableType] = []
    for entry in document["boards"]:
        parts.append(Text(view.board_title(entry), style="bold"))
        if warning := view.origin(entry):
            parts.append(Text(warning, style="bold yellow"))
        parts += [_table(entry, model["name"]) for model in entry["models"]]
        parts += [Text(line) for line in view.facts(entry)]
    return Group(*parts)


def _table(entry: view.Entry, model: str) -> RenderableType:
    cells = view.ordered([cell for cell in entry["cells"] if cell["model"] == model])
    if not cells:
        return Text(f"{PurePath(model).name}: not measured")
    rows = [view.row(cell) for cell in cells]
    shown = view.shown_columns(entry["cells"])
    title = Text(PurePath(model).name)
    engine, engines = view.COLUMNS.index("engine"), {cell["engine"] for cell in cells}
    if engine in shown and len(engines) == 1:
        # Said once, so that marks have room on eighty columns.
        shown.remove(engine)
        title.append(f", {engines.pop()}")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index in shown:
        name = view.COLUMNS[index]
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=name != "marks")
    for cells_of_row in rows:
        table.add_row(*(Text(cells_of_row[index]) for index in shown))
    return table
