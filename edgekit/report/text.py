"""A report as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from html import escape
from typing import Any

from edgekit.report import view
from edgekit.report.document import BenchmarkReport, BoardResult, CellResult, ModelInfo

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|!~])")
_FORMULA_STARTS = ("=", "+", "-", "@")


def to_markdown(report: BenchmarkReport) -> str:
    """Return the report as Markdown, one table per board."""
    lines = ["# Benchmark", "", f"{_escaped(view.created(report))}.", ""]
    missing = view.not_measured(report)
    lines += [f"**{_escaped(missing)}**\n"] if missing else []
    columns = ("model", *view.COLUMNS)
    rule = [" --- " if name in ("model", *view.TEXT_COLUMNS) else " ---: " for name in columns]
    for board in report.boards:
        lines += [f"## {_escaped(view.board_title(board))}", ""]
        warning = view.virtualization_warning(board)
        lines += [f"**{_escaped(warning)}**\n"] if warning else []
        lines += [f"| {' | '.join(columns)} |", f"|{'|'.join(rule)}|"]
        for model in board.models:
            for cell in view.cells_of(board, model.name):
                lines.append("| " + " | ".join(map(_escaped, (model.name, *view.row(cell)))) + " |")
        lines += ["", *(f"- {_escaped(line)}" for line in view.facts(board) + view.warnings(board)), ""]
    return "\n".join(lines)


def to_csv(report: BenchmarkReport) -> str:
    """Return the report as CSV, one line per cell, with units in the column names."""
    rows = []
    for board in report.boards:
        models = {model.name: model for model in board.models}
        rows += [_csv_row(board, models[cell.model], cell, report.created_utc) for cell in board.cells]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _csv_row(board: BoardResult, model: ModelInfo, cell: CellResult, created_utc: str) -> dict[str, Any]:
    low_ms, high_ms = cell.median_interval_ms or (None, None)
    readings = [reading for process in cell.processes for reading in process.during]
    temperatures_c = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    clocks_mhz = [reading.clock_mhz for reading in readings if reading.clock_mhz is not None]
    values = {
        "board": board.board.model,
        "label": board.label,
        "virtualization": board.board.virtualization,
        "measured_utc": board.measured_utc or created_utc,
        "model": model.name,
        "model_sha256": model.sha256,
        "precision": model.precision,
        "kind": cell.kind,
        "engine": cell.engine,
        "intra_op_threads": cell.intra_op_threads,
        "batch": cell.batch,
        "detector": cell.detector,
        "processes": len(cell.processes),
        "iterations": cell.latency.count,
        "p50_ms": cell.latency.p50_ms,
        "p50_low_ms": low_ms,
        "p50_high_ms": high_ms,
        "p90_ms": cell.latency.p90_ms,
        "p99_ms": cell.latency.p99_ms,
        "images_per_s": cell.images_per_s,
        "load_ms": cell.load_ms,
        "resident_mib": cell.resident_mib,
        "mean_w": cell.energy.mean_w if cell.energy else None,
        "joules_per_image": cell.energy.joules_per_image if cell.energy else None,
        "temperature_max_c": max(temperatures_c, default=None),
        "clock_min_mhz": min(clocks_mhz, default=None),
        "clock_max_mhz": max(clocks_mhz, default=None),
        "marks": "; ".join(cell.quality_flags),
        "age_p50_ms": cell.age.p50_ms if cell.age else None,
    }
    return {name: _without_formula(value) for name, value in values.items()}


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", escape(text, quote=False))


def _without_formula(value: Any) -> Any:
    """Quote text that a spreadsheet would evaluate as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
