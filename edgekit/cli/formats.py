"""`edgekit bench MODEL --formats`: one table of a model's formats, measured here or on boards."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.output import Output, TextTable, echo, one_line, picked
from edgekit.errors import HostError
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.export.formats import FormatsReport
    from edgekit.report import ReportOptions
    from edgekit.report.document import BenchmarkReport, BoardResult

_NEEDED = "--formats"


@dataclass(frozen=True, kw_only=True)
class FormatsOptions(Options):
    """The formats to compare, and the data of their accuracy."""

    title = "Formats"
    formats: tuple[str, ...] | None = option(
        "--formats",
        "Export MODEL in these formats and measure each: float32, int8, fp16, ncnn, ncnn-fp16.",
        metavar="all|NAME,NAME",
        parse=lambda text: tuple(text.split(",")),
    )
    data: Path | None = option("--data", "Data set for accuracy and calibration.", metavar="DATA", needs=_NEEDED)
    target: str | None = option(
        "--target",
        "Processor of the files: generic, x86, a53, a72 or a76. Default: this machine's processor; with --host, "
        "generic.",
        metavar="NAME",
        needs=_NEEDED,
    )


def bench_formats(
    out: Output,
    models: Sequence[str | Path],
    chosen: FormatsOptions,
    files: ReportOptions,
    measure: Callable[[Mapping[str, Path]], BenchmarkReport],
    on_boards: bool,
) -> None:
    """Run `bench --formats`; `measure` measures files by name, on this machine or `on_boards`.

    Raises:
        click.UsageError: An option is missing.
        InputError: The model or the data cannot be used.
        HostError: A board failed; the table of the others is printed first.
        KeyboardInterrupt: Ctrl-C was pressed; the table of the finished boards is printed first.
    """
    assert chosen.formats is not None
    if chosen.data is None:
        raise click.UsageError("--formats needs a data set for accuracy and calibration: use --data DATA")
    if len(models) > 1:
        raise click.UsageError("--formats takes one MODEL")
    from edgekit.cli.output import by_stage, progress_bar
    from edgekit.export.formats import FORMATS, benchmark_formats
    from edgekit.remote.parallel import INTERRUPTED

    found = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            bars = stack.enter_context(progress_bar(out))

            def measure_exported(paths: Mapping[str, Path]) -> BenchmarkReport:
                bars.stop()  # the measurement has a display of its own
                return measure(paths)

            found = benchmark_formats(
                models[0],
                chosen.data,
                formats=tuple(FORMATS) if chosen.formats == ("all",) else chosen.formats,
                target=chosen.target or ("generic" if on_boards else None),
                measure=measure_exported,
                progress=by_stage(bars),
                notify=out.say,
            )
            write(found.report)
    finally:
        if found is not None:
            _show(out, found, str(chosen.data))
            out.result(_document(found))
    errors = [f"{host.label}: {host.error}" for host in found.report.hosts if host.error not in (None, INTERRUPTED)]
    if any(host.error == INTERRUPTED for host in found.report.hosts):
        for line in errors:
            echo(one_line(line), err=True)
        raise KeyboardInterrupt
    if errors:
        raise HostError("; ".join(errors))


def _show(out: Output, found: FormatsReport, data: str) -> None:
    """Print for each board its table, the recommended format and the command that makes it, and what was left out."""
    from edgekit.report import view

    for board in found.report.boards:
        warning = view.virtualization_warning(board)
        out.show(*([warning] if warning else []), _table(found, board))
        best, cell = found.recommended(board)
        out.say(f"recommended: {best.name} with --threads {cell.intra_op_threads}, the fastest that is as accurate")
        command = (
            f"edgekit export {shlex.quote(found.model)} --target {found.target} {_export_options(best.name, data)}"
        )
        out.say(f"  {command}", indent=None)
        out.show(*view.warnings(board))
    total = found.files[0].evaluation.total
    out.say(f"accuracy: {found.dataset} {found.split}, {total} images, centre crop, measured on this machine")
    out.say("±: half of the 95 % interval, accuracy in points, p50 in percent; ms: one crop prepared and classified")
    out.show(*(f"{file.name}: {file.drop}" for file in found.files if file.drop))
    out.show(*(f"{name}: left out: {one_line(reason)}" for name, reason in found.left_out.items()))


def _export_options(name: str, data: str) -> str:
    from edgekit.export.formats import FORMATS

    options = FORMATS[name]
    words = ["-o", "mine.ncnn" if "engine" in options else "mine.onnx"]
    for option_name, value in options.items():
        words += ["--quantize" if option_name == "method" else f"--{option_name}", value]
    return shlex.join([*words, "--calibrate", data] if name == "int8" else words)


def _table(found: FormatsReport, board: BoardResult) -> TextTable:
    from edgekit.report import view
    from edgekit.report.statistics import wilson_interval

    rows = []
    for file, cell in found.rows(board):
        low, high = wilson_interval(file.evaluation.correct, file.evaluation.total)
        rows.append(
            (
                f"{file.name}{' *' if (file, cell) == found.recommended(board) else ''}",
                str(cell.intra_op_threads),
                f"{file.size_bytes / 1024:,.0f}",
                f"{100 * file.evaluation.accuracy:.2f} ±{50 * (high - low):.1f}",
                view.ms(cell.latency.p50_ms),
                view.plus_minus(cell),
                view.ms(cell.latency.p99_ms),
                f"{cell.resident_mib:.0f}",
            )
        )
    columns = ("format", "threads", "KiB", "accuracy %", "p50 ms", "±", "p99 ms", "MiB")
    return TextTable(columns, rows, ("format",), view.board_title(board))


def _document(found: FormatsReport) -> dict[str, Any]:
    """Return the document of `edgekit bench --formats --json`."""
    from edgekit.report.statistics import wilson_interval

    best = [(board.label, *found.recommended(board)) for board in found.report.boards]
    return {
        "schema": "edgekit.formats/1.0",
        **picked(found, "model", "target", "dataset", "split"),
        "formats": [
            {
                "format": file.name,
                **picked(file, "size_bytes", "drop"),
                **picked(file.evaluation, "correct", "total", "accuracy"),
                "accuracy_interval": wilson_interval(file.evaluation.correct, file.evaluation.total),
            }
            for file in found.files
        ],
        "left_out": dict(found.left_out),
        "recommended": [
            {"board": label, "format": file.name, "threads": cell.intra_op_threads} for label, file, cell in best
        ],
        "benchmark": found.report.as_document(),
    }
