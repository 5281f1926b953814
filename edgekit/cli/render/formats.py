"""Terminal output of `edgekit bench --formats`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, TextTable, one_line, picked

if TYPE_CHECKING:
    from edgekit.export.formats import FormatFile, FormatsReport, FormatTable

# Options of `edgekit export` that make each format.
_EXPORT = {
    "float32": "-o mine.onnx",
    "int8-qdq": "-o mine.onnx --quantize int8 --form qdq --calibrate {data}",
    "int8-qoperator": "-o mine.onnx --quantize int8 --form qoperator --calibrate {data}",
    "fp16": "-o mine.onnx --quantize fp16",
    "ncnn": "-o mine.ncnn --engine ncnn",
    "ncnn-fp16": "-o mine.ncnn --engine ncnn --precision fp16",
}


def show_formats(out: Output, found: FormatsReport, data: str) -> None:
    """Print for each board its table, the recommended format and the command that makes it, and what was left out."""
    from edgekit.report import view

    for table in found.tables:
        warning = view.virtualization_warning(table.board)
        out.show(*([warning] if warning else []), _table(table))
        best = table.recommended
        out.say(f"recommended: {best.file.name} with --threads {best.cell.intra_op_threads}: {table.reason}")
        options = _EXPORT[best.file.name].format(data=shlex.quote(data))
        out.say(f"  edgekit export {shlex.quote(found.model)} --target {found.target} {options}", indent=None)
        out.show(*view.warnings(table.board))
    total = found.files[0].evaluation.total
    out.say(f"accuracy: {found.dataset} {found.split}, {total} images, centre crop, measured on this machine")
    out.say("±: half of the 95 % interval, accuracy in points, p50 in percent; ms: one crop prepared and classified")
    out.show(*(f"{file.name}: {file.drop}" for file in found.files if file.drop))
    out.show(*(f"{name}: left out: {one_line(reason)}" for name, reason in found.left_out.items()))


def _table(table: FormatTable) -> TextTable:
    from edgekit.report import view

    rows = [
        (
            f"{row.file.name}{' *' if row is table.recommended else ''}",
            str(row.cell.intra_op_threads),
            f"{row.file.size_bytes / 1024:,.0f}",
            _accuracy(row.file),
            view.ms(row.cell.latency.p50_ms),
            view.plus_minus(row.cell),
            view.ms(row.cell.latency.p99_ms),
            f"{row.cell.resident_mib:.0f}",
        )
        for row in table.rows
    ]
    columns = ("format", "threads", "KiB", "accuracy %", "p50 ms", "±", "p99 ms", "MiB")
    return TextTable(columns, rows, ("format",), view.board_title(table.board))


def _accuracy(file: FormatFile) -> str:
    low, high = file.accuracy_interval
    return f"{100 * file.evaluation.accuracy:.2f} ±{50 * (high - low):.1f}"


def formats_document(found: FormatsReport) -> dict[str, Any]:
    """Return the document of `edgekit bench --formats --json`."""
    from edgekit.export.formats import SCHEMA

    return {
        "schema": SCHEMA,
        **picked(found, "model", "target", "dataset", "split"),
        "formats": [
            {
                "format": file.name,
                **picked(file, "size_bytes", "accuracy_interval", "drop"),
                **picked(file.evaluation, "correct", "total", "accuracy"),
            }
            for file in found.files
        ],
        "left_out": dict(found.left_out),
        "recommended": [
            {
                "board": table.board.label,
                "format": table.recommended.file.name,
                "threads": table.recommended.cell.intra_op_threads,
                "reason": table.reason,
            }
            for table in found.tables
        ],
        "benchmark": found.report.as_document(),
    }
