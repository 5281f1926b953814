"""`edgekit bench MODEL --formats`: one table of a model's formats, measured here or on boards."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, TextTable, by_stage, one_line, picked, progress_bar
from edgekit.export.formats import FORMATS, FormatsReport, Measure, benchmark_formats
from edgekit.report import view

if TYPE_CHECKING:
    from edgekit.report import ReportOptions
    from edgekit.report.document import BenchmarkReport, BoardResult


def bench_formats(
    out: Output,
    model: str | Path,
    data: Path,
    formats: tuple[str, ...],
    target: str | None,
    files: ReportOptions,
    measure: Measure,
) -> None:
    """Compare formats of a model and print the result; `measure` measures files by name.

    `formats` are names, or "all" alone. `target` None is that of this machine.

    Raises:
        InputError: The model or the data cannot be used.
    """
    result = None
    try:
        with ExitStack() as stack:
            write_report = files.open(stack)  # fails now if a file cannot be written
            bars = stack.enter_context(progress_bar(out))

            def measure_exported(paths: Mapping[str, Path]) -> BenchmarkReport:
                bars.stop()  # those of the export; the measurement has a display of its own
                return measure(paths)

            result = benchmark_formats(
                model,
                data,
                formats=tuple(FORMATS) if formats == ("all",) else formats,
                target=target,
                measure=measure_exported,
                progress=by_stage(bars),
                notify=out.say,
            )
            write_report(result.report)
    finally:
        # Printed even if the report's files cannot be written, because a measurement takes long.
        if result is not None:
            _show(out, result, str(data))
            out.result(_document(result))


def _show(out: Output, result: FormatsReport, data: str) -> None:
    """Print for each board its table, the recommended format and the command that makes it, and what was left out."""
    for board in result.report.boards:
        warning = view.virtualization_warning(board)
        out.show(*([warning] if warning else []), _table(result, board))
        best, cell = result.recommended(board)
        out.say(f"recommended: {best.name} with --threads {cell.intra_op_threads}, the fastest that is as accurate")
        command = (
            f"edgekit export {shlex.quote(result.model)} --target {result.target} {_export_options(best.name, data)}"
        )
        out.say(f"  {command}", indent=None)
        out.show(*view.warnings(board))
    total = result.files[0].evaluation.total
    out.say(f"accuracy: {result.dataset} {result.split}, {total} images, centre crop, measured on this machine")
    out.say("±: half of the 95 % interval, accuracy in points, p50 in percent; ms: one inference of a prepared crop")
    # `drop` is a sentence, for a file that is not accurate enough to be recommended.
    out.show(*(f"{file.name}: {file.drop}" for file in result.files if file.drop))
    out.show(*(f"{name}: left out: {one_line(reason)}" for name, reason in result.left_out.items()))


def _export_options(name: str, data: str) -> str:
    """Return the options of `edgekit export` that make a file of format `name`."""
    arguments = FORMATS[name]  # of `export` and `quantize`, such as {"method": "int8"}
    words = ["-o", "mine.ncnn" if "engine" in arguments else "mine.onnx"]
    for argument, value in arguments.items():
        words += ["--quantize" if argument == "method" else f"--{argument}", value]
    if name == "int8":  # the other formats need no data
        words += ["--calibrate", data]
    return shlex.join(words)


def _table(result: FormatsReport, board: BoardResult) -> TextTable:
    """Return the table of the formats on a board; * marks the recommended one."""
    rows = []
    for file, cell in result.rows(board):
        low, high = file.accuracy_interval  # 0..1
        half_points = 100 * (high - low) / 2
        mark = " *" if (file, cell) == result.recommended(board) else ""
        rows.append(
            (
                f"{file.name}{mark}",
                str(cell.intra_op_threads),
                f"{file.size_bytes / 1024:,.0f}",
                f"{100 * file.evaluation.accuracy:.2f} ±{half_points:.1f}",
                view.ms(cell.latency.p50_ms),
                view.plus_minus(cell),
                view.ms(cell.latency.p99_ms),
                f"{cell.resident_mib:.0f}",
            )
        )
    columns = ("format", "threads", "KiB", "accuracy %", "p50 ms", "±", "p99 ms", "MiB")
    return TextTable(columns, rows, ("format",), view.board_title(board))


def _document(result: FormatsReport) -> dict[str, Any]:
    """Return the document of `edgekit bench --formats --json`."""
    recommended = []
    for board in result.report.boards:
        file, cell = result.recommended(board)
        recommended.append({"board": board.label, "format": file.name, "threads": cell.intra_op_threads})
    return {
        "schema": "edgekit.formats/1.0",
        **picked(result, "model", "target", "dataset", "split"),
        "formats": [
            {
                "format": file.name,
                **picked(file, "size_bytes", "drop", "accuracy_interval"),
                **picked(file.evaluation, "correct", "total", "accuracy"),
            }
            for file in result.files
        ],
        "left_out": dict(result.left_out),
        "recommended": recommended,
        "benchmark": result.report.as_document(),
    }
