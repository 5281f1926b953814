"""A report as tables for a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.report import view
from edgekit.report.document import BenchmarkReport, BoardResult
from edgekit.text import WARNING_COLOUR


def report_view(report: BenchmarkReport) -> Group:
    """Return for each board its title, one table per model, facts and warnings; at the end, overviews of the boards."""
    report = view.with_short_names(report)
    parts: list[RenderableType] = []
    for board in report.boards:
        warning = view.virtualization_warning(board)
        parts.append(Text(view.board_title(board), style="bold"))
        parts += [Text(warning, style=f"bold {WARNING_COLOUR}")] if warning else []
        parts += [_table(board, model.name) for model in board.models]
        parts += [Text(line) for line in view.facts(board) + view.warnings(board)]
    overviews = view.overviews(report)
    parts += [Text("All boards", style="bold")] if overviews else []
    parts += [_overview(overview) for overview in overviews]
    parts += [Text(view.overview_note(overviews))] if overviews else []
    missing = view.not_measured(report)
    parts += [Text(missing)] if missing else []
    return Group(*parts)


def _overview(overview: view.Overview) -> Table:
    title = Text(overview.model)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in overview.columns:
        is_text = name in ("board", "quality flags")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in overview.rows:
        table.add_row(*map(Text, row))
    return table


def _table(board: BoardResult, model: str) -> RenderableType:
    cells = view.cells_of(board, model)
    if not cells:
        return Text(f"{model}: not measured")
    shown = view.shown_columns(board.cells)
    title = Text(model)
    engine, engines = view.COLUMNS.index("engine"), {cell.engine for cell in cells}
    if engine in shown and len(engines) == 1:
        # The engine is in the title instead of a column, so that quality flags fit into eighty columns.
        shown.remove(engine)
        title.append(f", {engines.pop()}")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index in shown:
        name = view.COLUMNS[index]
        is_text = name in view.TEXT_COLUMNS
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "quality flags")
    for row in map(view.row, cells):
        table.add_row(*(Text(row[index]) for index in shown))
    return table
