"""`edgekit bench`: measures how fast models are on this machine or on boards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.boards.formats import FormatsOptions
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.render.reports import ReportOptions
from edgekit.device.benchmark.options import BenchmarkOptions
from edgekit.options import Options, option
from edgekit.remote.host_options import InstallingHostOptions

if TYPE_CHECKING:
    from edgekit.device.benchmark.rounds import BenchmarkProgress
    from edgekit.report.document import BenchmarkReport


@dataclass(frozen=True, kw_only=True)
class ConditionOptions(Options):
    """What is measured beside the net, and the readings of a power meter."""

    title = "Conditions"
    no_pipeline: bool = option(
        "--no-pipeline",
        "Measure the kind `net` only, not the pipeline (kinds `frame` and `run`).",
        default=False,
        excludes="--formats",
        section="Measurement",
    )
    power_file: Path | None = option(
        "--power-file",
        "File with the readings of a power meter, one line `seconds watts` per reading.",
        metavar="FILE",
        excludes=("--host", "--inventory", "--formats"),
    )


@edgekit_command(
    "bench",
    short_help="Measure how fast models are on this machine.",
    options=BenchmarkOptions,
    conditions=ConditionOptions,
    formats=FormatsOptions,
    files=ReportOptions,
    boards=InstallingHostOptions,
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def command(
    out: Output,
    options: BenchmarkOptions,
    conditions: ConditionOptions,
    formats: FormatsOptions,
    files: ReportOptions,
    boards: InstallingHostOptions,
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
    The processes run in rounds. In each round, the order of the cells is random and depends on a seed. The report
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
    hosts = boards.hosts()
    if conditions.no_pipeline:
        options = replace(options, kinds=["net"])
    if formats.formats is not None:
        from edgekit.cli.boards.formats import bench_formats

        bench_formats(out, options, formats, files, boards, hosts, measure)
    elif hosts:
        from edgekit.cli.boards.bench import bench_on_hosts

        bench_on_hosts(out, options, files, boards, hosts)
    else:
        _bench_here(out, options, conditions.power_file, files)


def _bench_here(out: Output, options: BenchmarkOptions, power_file: Path | None, files: ReportOptions) -> None:
    """Measure models on this machine, write the report and print it.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the report on the finished processes is written first.
        IncompleteError: A process failed; the report on those before is written first.
    """
    from edgekit.device.benchmark.run import IncompleteError
    from edgekit.report.power import power_meter
    from edgekit.report.terminal import report_view
    from edgekit.report.view import frame_rates, with_short_names

    report = failure = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            if power_file:
                options = replace(options, power=power_meter(power_file, out.warn))
            try:
                report = measure(out, options)
            except IncompleteError as error:
                report, failure = error.report, error
            write(report)
    finally:
        if report is not None:
            out.show(*report_view(report))
            out.result(report.as_document())
    for path in files.paths:
        out.say(f"report: {path}")
    out.show(*frame_rates(with_short_names(report), here=True))
    if failure is not None:
        raise failure
    if not report.complete:
        raise KeyboardInterrupt


def measure(out: Output, options: BenchmarkOptions) -> BenchmarkReport:
    """Measure models on this machine with a progress display."""
    from edgekit.device.benchmark.run import benchmark

    with _progress(out) as show:
        return benchmark(**vars(options) | {"progress": show, "notify": out.warn})


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
