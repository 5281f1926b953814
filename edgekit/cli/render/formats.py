"""Terminal output of `edgekit bench --formats`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edgekit.cli.output import Output, one_line
from edgekit.text import WARNING_COLOUR

if TYPE_CHECKING:
    from rich.table import Table

    from edgekit.export.formats.table import FormatFile, FormatsReport, FormatTable

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
    from rich.text import Text

    from edgekit.report import view

    for table in found.tables:
        out.show(Text(view.board_title(table.board), style="bold"))
        warning = view.virtualization_warning(table.board)
        if warning:
            out.show(Text(warning, style=f"bold {WARNING_COLOUR}"))
        out.show(_table(table))
        best = table.recommended
        threads = best.cell.intra_op_threads
        out.say(f"recommended: {best.file.name} with --threads {threads}: {table.reason}")
        options = _EXPORT[best.file.name].format(data=shlex.quote(data))
        out.say(f"  edgekit export {shlex.quote(found.model)} --target {found.target} {options}", indent=None)
        for line in view.warnings(table.board):
            out.say(line)
    total = found.files[0].evaluation.total
    out.say(f"accuracy: {found.dataset} {found.split}, {total} images, centre crop, measured on this machine")
    out.say("±: half of the 95 % interval, accuracy in points, p50 in percent; ms: one crop prepared and classified")
    for file in found.files:
        if file.drop:
            out.say(f"{file.name}: {file.drop}")
    for name, reason in found.left_out.items():
        out.say(f"{name}: left out: {one_line(reason)}")


def _table(table: FormatTable) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from edgekit.report import view

    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("format", no_wrap=True)
    for name in ("threads", "KiB", "accuracy %", "p50 ms", "±", "p99 ms", "MiB"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        is_best = row is table.recommended
        latency = row.cell.latency
        shown.add_row(
            f"{row.file.name}{' *' if is_best else ''}",
            str(row.cell.intra_op_threads),
            f"{row.file.size_bytes / 1024:,.0f}",
            _accuracy(row.file),
            view.ms(latency.p50_ms),
            view.plus_minus(row.cell),
            view.ms(latency.p99_ms),
            f"{row.cell.resident_mib:.0f}",
            style="bold" if is_best else "",
        )
    return shown


def _accuracy(file: FormatFile) -> str:
    low, high = file.accuracy_interval
    return f"{100 * file.evaluation.accuracy:.2f} ±{50 * (high - low):.1f}"
