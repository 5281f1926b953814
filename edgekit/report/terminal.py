"""A report as tables for a terminal."""

from __future__ import annotations

from edgekit.report import view
from edgekit.report.document import BenchmarkReport, BoardResult
from edgekit.text_table import TextTable


def report_view(report: BenchmarkReport) -> list[str | TextTable]:
    """Return for each board its title, one table per model, facts and warnings; at the end, overviews of the boards."""
    report = view.with_short_names(report)
    parts: list[str | TextTable] = []
    for board in report.boards:
        parts.append(view.board_title(board))
        parts += [warning] if (warning := view.virtualization_warning(board)) else []
        parts += [_table(board, model.name) for model in board.models]
        parts += ["", *view.facts(board), *view.warnings(board)]
    overviews = view.overviews(report)
    parts += ["", "All boards"] if overviews else []
    parts += [TextTable(each.columns, each.rows, ("board", "quality flags"), each.model) for each in overviews]
    parts += [view.overview_note(overviews)] if overviews else []
    parts += [missing] if (missing := view.not_measured(report)) else []
    return parts


def _table(board: BoardResult, model: str) -> str | TextTable:
    cells = view.cells_of(board, model)
    if not cells:
        return f"{model}: not measured"
    shown = view.shown_columns(board.cells)
    engine, engines = view.COLUMNS.index("engine"), {cell.engine for cell in cells}
    if engine in shown and len(engines) == 1:
        # The engine is in the title instead of a column, so that quality flags fit into eighty columns.
        shown.remove(engine)
        model = f"{model}, {engines.pop()}"
    rows = [[row[index] for index in shown] for row in map(view.row, cells)]
    return TextTable([view.COLUMNS[index] for index in shown], rows, view.TEXT_COLUMNS, model)
