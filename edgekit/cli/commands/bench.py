"""`edgekit bench`: measures how fast models are on this machine or on boards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.boards.formats import FORMATS_PARAMETERS, bench_formats, formats_options
from edgekit.cli.boards.hosts import HostChoice, host_options, no_install_option
from edgekit.cli.command import Command, section
from edgekit.cli.options import MAX_THREADS, PATH, SEED, NumberRange, detector_options, refuse_unused
from edgekit.cli.output import Output
from edgekit.cli.render.reports import ReportFiles, report_options

if TYPE_CHECKING:
    from edgekit.device.benchmark.rounds import BenchmarkProgress
    from edgekit.report.document import BenchmarkReport, Kind

_MAX_NOTES = 30
# Parameters with the names of arguments of `edgekit.benchmark`.
_SETTINGS = ("threads", "seconds", "processes", "batch", "seed", "cool_down_s", "allow_throttled", "notes")
_PIPELINE_OPTIONS = ("source_uri", "detector_name", "detector_model", "detector_size")


def _thread_counts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.split(",")
    if not all(re.fullmatch("[0-9]{1,4}", part) and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise click.BadParameter(
            f"'{value}' is not a list of numbers from 1 to {MAX_THREADS}, such as 1,2,4", ctx, param
        )
    counts = tuple(int(part) for part in parts)
    if twice := next((count for count in counts if counts.count(count) > 1), None):
        raise click.BadParameter(f"thread count given twice: {twice}", ctx, param)
    return counts


def _notes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    notes = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator and value.isprintable() and len(key) <= 100 and len(text) <= 200):
            raise click.BadParameter(f"'{value}' is not KEY=VALUE, such as fan=none", ctx, param)
        notes[key] = text
    if len(notes) > _MAX_NOTES:
        raise click.BadParameter(f"{len(notes)} notes are more than {_MAX_NOTES}", ctx, param)
    return notes


@click.command("bench", cls=Command, short_help="Measure how fast models are on this machine.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@section(
    "Measurement",
    click.option(
        "--threads",
        callback=_thread_counts,
        metavar="1,2,4",
        help="Numbers of threads. [default: 1 and the number of processors; for `run`, the numbers that `edgekit "
        "run` chooses]",
    ),
    click.option(
        "--seconds",
        type=NumberRange(0.01, 3600),
        default=10,
        show_default=True,
        metavar="SECONDS",
        help="Minimum time per cell.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(1, 100),
        metavar="N",
        default=3,
        show_default=True,
        help="Processes per cell; they share --seconds.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1, 1024),
        metavar="N",
        default=1,
        show_default=True,
        help="Faces or images per inference of `net`.",
    ),
    click.option(
        "--pipeline/--no-pipeline",
        default=True,
        show_default=True,
        help="Also measure the pipeline (kinds `frame` and `run`).",
    ),
    click.option(
        "--seed", type=SEED, default=0, show_default=True, metavar="N", help="Seed of the order of the cells."
    ),
)
@section("Formats", formats_options)
@section(
    "Frames",
    click.option(
        "--source",
        "source_uri",
        default="demo",
        show_default=True,
        metavar="URI",
        help="Frame source of `frame` and `run`.",
    ),
    detector_options,
)
@section(
    "Conditions",
    click.option(
        "--cool-down",
        "cool_down_s",
        type=NumberRange(0, 3600),
        default=20,
        show_default=True,
        metavar="SECONDS",
        help="Longest pause between processes, in which the board cools down.",
    ),
    click.option(
        "--allow-throttled", is_flag=True, help="Keep measurements of a throttled board instead of repeating them."
    ),
    click.option(
        "--note",
        "notes",
        multiple=True,
        callback=_notes,
        metavar="KEY=VALUE",
        help="Note a condition that no program detects, such as fan=none.",
    ),
    click.option(
        "--power-file",
        type=PATH,
        metavar="FILE",
        help="File with the readings of a power meter, one line `seconds watts` per reading.",
    ),
)
@section(
    "Report",
    click.option("-o", "--output", type=PATH, metavar="FILE", help="Write the report as JSON."),
    report_options,
)
@section("Boards", host_options, no_install_option)
def command(
    out: Output,
    chosen: HostChoice,
    models: tuple[str, ...],
    source_uri: str,
    pipeline: bool,
    power_file: Path | None,
    formats: str | None,
    output: Path | None,
    html_path: Path | None,
    markdown_path: Path | None,
    csv_path: Path | None,
    **options: Any,
) -> None:
    """Measure how fast models are on this machine or on boards.

    MODEL is an .onnx or .ncnn file, `default`, `fer2013` or `distilled`; each runs on its own engine.

    \b
    Kinds of measurement:
      net    one inference
      frame  one frame through detection and classification
      run    the loop of `edgekit run`: its frame rate is what you get

    A cell is one model with one kind and one number of threads. Each cell is measured in several processes, for at
    least --seconds and at least 100 iterations. Before each measurement, a warm-up lasts until the times are stable.
    The processes run in rounds. In each round, the order of the cells is random and depends on --seed. The report
    contains percentiles, the interval of the median, memory and versions. It also contains the board with its
    temperature, clock frequency, governor and throttle flags. If the board throttled or its clock frequency changed,
    the process is repeated after a pause. After Ctrl-C or a failure, the finished measurements are kept. Of several
    boards, the reports of the finished boards are kept.

    With --formats, MODEL is a checkpoint that is exported in each format. One table shows accuracy, size, p50, p99 and
    memory of the formats. The accuracy is measured with --data on this machine. The recommended format is the fastest
    format whose accuracy drops by at most 0.5 percentage points plus two standard errors. Of several equally fast
    formats, the smallest one is recommended. The exported files are temporary.

    With --host or --inventory, the models are measured on boards over SSH. First, edgekit is installed on the boards.
    The boards need no internet access.

    \b
    Examples:
      edgekit bench default
      edgekit bench float.onnx int8.onnx float.ncnn --threads 1,2,4 -o report.json --html report.html
      edgekit bench mine.onnx --source holiday.mp4 --detector haar --seconds 30
      edgekit bench mine.onnx --note fan=none --note supply=5.1V --power-file meter.txt
      edgekit bench mine.onnx --no-pipeline --batch 8 --json
      edgekit bench mine.onnx --host pi@raspberrypi.local --html report.html
      edgekit bench mine.onnx --inventory boards.toml -o boards.json
      edgekit bench default --formats all --data fer2013.tar.gz
      edgekit bench runs/mine --formats int8-qdq,ncnn --data faces --target a53
          --host pi@raspberrypi.local --json
    """
    files = ReportFiles(output, html_path, markdown_path, csv_path)
    files.check()
    settings = {name: options[name] for name in _SETTINGS}
    if formats is not None:
        bench_formats(out, chosen, models, files, partial(_measure, out, settings))
        return
    context = click.get_current_context()
    refuse_unused(context, FORMATS_PARAMETERS, "has no effect without --formats")
    if not pipeline:
        refuse_unused(context, _PIPELINE_OPTIONS, "has no effect with --no-pipeline")
    if chosen.hosts:
        from edgekit.cli.boards.bench import bench_on_hosts
        from edgekit.report.schema import check_fits

        check_fits(names=(*models, source_uri), boards=len(chosen.hosts))
        bench_on_hosts(out, chosen, models, files)
        return
    settings |= {
        "source": source_uri,
        "detector": options["detector_name"],
        "detector_model": options["detector_model"],
        "detector_size_px": options["detector_size"],
    }
    from edgekit.report.document import KINDS

    _bench_here(out, settings, models, KINDS if pipeline else ["net"], power_file, files)


def _bench_here(
    out: Output,
    settings: dict[str, Any],
    models: Sequence[str],
    kinds: Sequence[Kind],
    power_file: Path | None,
    files: ReportFiles,
) -> None:
    """Measure models on this machine, write the report and print it.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the report on the finished processes is written first.
        IncompleteError: A process failed; the report on those before is written first.
    """
    from edgekit.device.benchmark.run import IncompleteError
    from edgekit.remote.file_names import reported_name
    from edgekit.report.power import power_meter
    from edgekit.report.terminal import report_view

    report = failure = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            if power_file:
                settings["power"] = power_meter(power_file, out.warn)
            try:
                report = _measure(out, settings, models, kinds, reported_name)
            except IncompleteError as error:
                report, failure = error.report, error
            write(report)
    finally:
        if report is not None:
            out.show(*report_view(report))
            out.result(report.as_document())
    for path in files.paths:
        out.say(f"report: {path}")
    if failure is not None:
        raise failure
    if not report.complete:
        raise KeyboardInterrupt


def _measure(
    out: Output,
    settings: Mapping[str, Any],
    models: Sequence[str],
    kinds: Sequence[Kind],
    report_name: Callable[[str], str],
) -> BenchmarkReport:
    """Measure models on this machine with a progress display; `settings` are arguments of `edgekit.benchmark`."""
    from edgekit.device.benchmark.run import benchmark

    with _progress(out) as show:
        return benchmark(models, kinds=kinds, report_name=report_name, progress=show, notify=out.warn, **settings)


@contextmanager
def _progress(out: Output) -> Iterator[Callable[[BenchmarkProgress], None]]:
    """Yield a callback that moves a progress bar or, without a terminal, prints one line per process."""
    from edgekit.cli.progress import progress_bar

    bar = progress_bar(out)
    bar.live.auto_refresh = False  # a drawing thread would take time from the measurement
    task = bar.add_task("processes", total=None)

    def show(state: BenchmarkProgress) -> None:
        process = state.finished
        if process is None:
            bar.update(task, description=state.cell.name, completed=state.done, total=state.total, refresh=True)
        elif bar.disable:
            flags = f" ({', '.join(process.quality_flags)})" if process.quality_flags else ""
            out.say(f"{state.done}/{state.total} {state.cell.name}: {process.latency.p50_ms:.3f} ms{flags}")

    with bar:
        yield show
