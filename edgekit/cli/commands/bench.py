"""`edgekit bench`: measures how fast models are on this machine or on boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.boards import BoardReporter, needs_detector, raise_failures, yunet_upload
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, one_line, progress_bar
from edgekit.device.benchmark import BenchmarkOptions
from edgekit.errors import HostError, InputError
from edgekit.options import Options, defaults, option
from edgekit.remote.hosts import InstallingHostOptions
from edgekit.report import ReportOptions

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgekit.device.benchmark.rounds import BenchmarkProgress
    from edgekit.remote.bench import HostReport, Job
    from edgekit.remote.hosts import Host
    from edgekit.remote.parallel import HostResult
    from edgekit.remote.payload import Upload
    from edgekit.report.document import BenchmarkReport

# What is sent to the boards beside the files.
_SENT = (
    *("kinds", "threads", "seconds", "processes", "batch", "source", "detector"),
    *("cool_down_s", "allow_throttled", "notes"),
)


@dataclass(frozen=True, kw_only=True)
class KindOptions(Options):
    """What is measured beside the net."""

    title = "Measurement"
    no_pipeline: bool = option(
        "--no-pipeline",
        "Measure the kind `net` only, without `frame` and `run`.",
        default=False,
        excludes="--formats",
    )


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
    data: Path | None = option(
        "--data",
        "Data set for the calibration of int8 and the accuracy, which is measured on this machine.",
        metavar="DATA",
        needs="--formats",
    )
    target: str | None = option(
        "--target",
        "Processor of the files: generic, x86, a53, a72 or a76. Default: this machine's processor; with --host, "
        "generic.",
        metavar="NAME",
        needs="--formats",
    )


@edgekit_command(
    "bench",
    short_help="Measure how fast models are on this machine.",
    options=BenchmarkOptions,
    kinds=KindOptions,
    formats=FormatsOptions,
    files=ReportOptions,
    boards=InstallingHostOptions,
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def command(
    out: Output,
    options: BenchmarkOptions,
    kinds: KindOptions,
    formats: FormatsOptions,
    files: ReportOptions,
    boards: InstallingHostOptions,
) -> None:
    """Measure how fast models are on this machine or on boards.

    MODEL is an .onnx or .ncnn file, `default`, `fer2013` or `distilled`.

    \b
    Kinds of measurement:
      net    one inference
      frame  one frame through detection and classification
      run    the loop of `edgekit run`: its frame rate is what you get

    A cell is one model with one kind and one number of threads. Each cell is measured in several processes, after a
    warm-up, for at least --seconds and at least 100 iterations. The report contains percentiles, the interval of the
    median, memory, and temperature, clock frequency and throttle flags of the board. If the board throttled or its
    clock frequency changed, the process is repeated after a pause. After Ctrl-C or a failure, the report contains the
    finished measurements.

    With --formats, MODEL is a checkpoint that is exported in each format for the measurement. A table shows accuracy,
    size, p50, p99 and memory of the formats. The recommended format is the fastest one whose accuracy drops by at most
    0.5 percentage points plus two standard errors.

    With --host or --inventory, the models are measured on boards over SSH. The command first installs edgekit on the
    boards, which need no internet access. After Ctrl-C, the report contains the finished boards, and a
    message names the file in which each other board keeps its finished measurements.

    \b
    Examples:
      edgekit bench default
      edgekit bench float.onnx int8.onnx float.ncnn --threads 1,2,4 -o report.json --html report.html
      edgekit bench mine.onnx --source holiday.mp4 --detector haar --seconds 30
      edgekit bench mine.onnx --note fan=none --note supply=5.1V
      edgekit bench mine.onnx --no-pipeline --batch 8 --json
      edgekit bench mine.onnx --host pi@raspberrypi.local --html report.html
      edgekit bench mine.onnx --inventory boards.toml -o boards.json
      edgekit bench default --formats all --data fer2013.tar.gz
      edgekit bench runs/mine --formats int8,ncnn --data faces --target a53
          --host pi@raspberrypi.local --json
    """
    hosts = boards.hosts()
    if kinds.no_pipeline:
        options = replace(options, kinds=["net"])
    if formats.formats is None:
        _bench(out, options, files, boards, hosts)
        return
    assert isinstance(options.models, tuple)  # as click returns an argument that can be repeated
    if formats.data is None:
        raise click.UsageError("--formats needs a data set for accuracy and calibration: use --data DATA")
    if len(options.models) > 1:
        raise click.UsageError("--formats takes one MODEL")
    from edgekit.cli.formats import bench_formats

    results: list[HostResult[HostReport]] = []  # of the boards; `_measure_files` appends them
    measure_files = partial(_measure_files, out, options, boards, hosts, results)
    # The default of `benchmark_formats` is the target of this machine, which boards may not have.
    target = formats.target or ("generic" if hosts else None)
    bench_formats(out, options.models[0], formats.data, formats.formats, target, files, measure_files)
    raise_failures(results)


def _bench(
    out: Output, options: BenchmarkOptions, files: ReportOptions, boards: InstallingHostOptions, hosts: Sequence[Host]
) -> None:
    """Measure models on this machine, or on boards, write the report and print it.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the report on the finished processes or boards is written first.
        EdgekitError: A process or a board failed; the report on the others is written first.
    """
    from edgekit.report.view import frame_rates, report_view

    report = failure = None  # `failure` is the error that ended a measurement on this machine early
    results: Sequence[HostResult[HostReport]] = ()  # of the boards
    try:
        with ExitStack() as stack:
            write_report = files.open(stack)  # fails now if a file cannot be written
            if hosts:
                report, results = _measure_on_hosts(out, _job(out, options, boards), boards, hosts)
                if report is None:
                    raise_failures(results)  # within the stack, so that existing report files are kept
                    return  # not reached: without a report, all boards have failed
            else:
                report, failure = _measure_here(out, options)
            write_report(report)
    finally:
        # Printed even if the report's files cannot be written, because a measurement takes long.
        if report is not None:
            out.show(*report_view(report))
            out.result(report.as_document())
    _print_overheads(out, report)
    for path in files.paths:
        out.say(f"report: {path}")
    out.show(*frame_rates(report, here=not hosts))
    if failure is not None:
        raise failure
    if not hosts and not report.complete:
        raise KeyboardInterrupt  # again: `benchmark` caught it, and returned the report of the finished processes
    if any(done.interrupted for done in results):
        out.warn(f"interrupted: the report has {len(report.boards)} of {len(results)} boards")
    raise_failures(results)


def _print_overheads(out: Output, report: BenchmarkReport) -> None:
    """Print for each board the time before its measurement, and how much was sent."""
    for host in report.hosts:
        if host.overhead_s is not None:
            sent = f"{host.sent_bytes / 1e6:.1f} MB sent" if host.sent_bytes else "nothing sent"
            out.say(f"{host.label}: {host.overhead_s:.1f} s until the measurement started, {sent}")


def _measure_here(out: Output, options: BenchmarkOptions) -> tuple[BenchmarkReport, Exception | None]:
    """Measure models on this machine; return the report, and the error that ended the measurement early."""
    from edgekit.device.benchmark.run import IncompleteError

    try:
        return measure(out, options), None
    except IncompleteError as error:
        return error.report, error


def _measure_on_hosts(
    out: Output, job: Job, boards: InstallingHostOptions, hosts: Sequence[Host]
) -> tuple[BenchmarkReport | None, list[HostResult[HostReport]]]:
    """Measure models on boards; return one report, if a board has one, and the results of all boards.

    A board whose benchmark failed after some measurements has a result and an error.
    """
    from edgekit.remote.bench import KEPT_REPORT, bench_host, merged_report
    from edgekit.remote.parallel import INTERRUPTED, run_on_hosts

    with BoardReporter(out, len(hosts)) as reporter:
        work = partial(bench_host, job=job, reporter=reporter)
        results = run_on_hosts(hosts, work, boards.parallel, reporter.finished, failure=lambda report: report.failure)
    if any(done.error == INTERRUPTED for done in results):
        out.warn(f"interrupted: a board keeps its finished measurements, if it has any, in '{KEPT_REPORT}'")
    return merged_report(results), results


def _measure_files(
    out: Output,
    options: BenchmarkOptions,
    boards: InstallingHostOptions,
    hosts: Sequence[Host],
    results: list[HostResult[HostReport]],
    files: Mapping[str, Path],
) -> BenchmarkReport:
    """Measure the nets in `files` (by name) here or on boards, for `bench --formats`, and return one report.

    The results of the boards are appended to `results`, whose failures the caller raises at the end.

    Raises:
        HostError: All boards failed.
        KeyboardInterrupt: Ctrl-C was pressed, and no board was measured.
    """
    options = replace(options, kinds=["net"])
    if not hosts:
        names = {str(path): name for name, path in files.items()}  # the report names the formats, not the files
        return measure(out, replace(options, models=list(names), report_name=names.__getitem__))
    from edgekit.remote.bench import merged_report
    from edgekit.remote.payload import pack

    uploads = {name: pack(path, "model") for name, path in files.items()}
    _, measured = _measure_on_hosts(out, _job_of(options, boards, uploads), boards, hosts)
    results += measured
    # A board whose benchmark failed after some formats is left out, because its table would not be complete.
    report = merged_report([replace(done, result=None) if done.error else done for done in results])
    if report is None:
        raise_failures(results)
        raise HostError("no board was measured")  # not reached: without a report, all boards have failed
    return report


def measure(out: Output, options: BenchmarkOptions) -> BenchmarkReport:
    """Measure models on this machine with a progress display."""
    from edgekit.device.benchmark.run import benchmark

    bar = progress_bar(out)
    bar.live.auto_refresh = False  # a drawing thread would take time from the measurement
    show = partial(_show_progress, out, bar, bar.add_task("processes", total=None))
    with bar:
        return benchmark(**vars(options) | {"progress": show, "notify": out.warn})


def _show_progress(out: Output, bar: Progress, task: TaskID, state: BenchmarkProgress) -> None:
    """Move the bar when a process starts; without a terminal, print a line when a process has finished."""
    process = state.finished
    if process is None:
        bar.update(task, description=state.cell.name, completed=state.done, total=state.total, refresh=True)
    elif bar.disable:  # there is no terminal
        flags = f" ({', '.join(process.quality_flags)})" if process.quality_flags else ""
        out.say(f"{state.done}/{state.total} {state.cell.name}: {process.latency.p50_ms:.3f} ms{flags}")


def _job(out: Output, options: BenchmarkOptions, boards: InstallingHostOptions) -> Job:
    """Return the job for the boards: options, and the files of the models and of other options.

    Raises:
        InputError: A model is given twice, or a file cannot be read.
    """
    from edgekit.model_store import DEVICE_SUFFIXES, resolve_model
    from edgekit.remote.payload import pack

    assert isinstance(options.models, tuple)  # as click returns an argument that can be repeated
    if len(set(options.models)) < len(options.models):
        raise InputError("a model is given twice: give each model once")
    uploads = {name: pack(resolve_model(name, DEVICE_SUFFIXES), "model") for name in options.models}
    # `upload.name` is made from the hash of the content.
    if len({upload.name for upload in uploads.values()}) < len(uploads):
        raise InputError("two of the models are the same file: give each model once")
    files: dict[str, Upload] = {}
    if options.kinds is None:  # else only nets are measured, which need neither source nor detector
        files = _files_of_options(out, options, [upload.path for upload in uploads.values()])
    return _job_of(options, boards, uploads, files)


def _job_of(
    options: BenchmarkOptions,
    boards: InstallingHostOptions,
    uploads: Mapping[str, Upload],
    files: Mapping[str, Upload] | None = None,
) -> Job:
    """Return the job with the options that differ from their defaults; `files` are sent as values of options."""
    from edgekit.model_store import engine_extras
    from edgekit.remote.bench import Job

    default_of = defaults(BenchmarkOptions)
    values = {name: getattr(options, name) for name in _SENT}
    changed = {name: value for name, value in values.items() if value != default_of[name]}
    extras = engine_extras(upload.path for upload in uploads.values())
    return Job(uploads, changed, files or {}, install=not boards.no_install, extras=extras)


def _files_of_options(out: Output, options: BenchmarkOptions, models: Sequence[Path]) -> dict[str, Upload]:
    """Return the files of --source and --detector to send to the boards, by argument.

    Raises:
        InputError: The source is a folder, or the file of an option cannot be read.
    """
    from edgekit.model_store import ONNX_SUFFIX
    from edgekit.remote.payload import pack

    files: dict[str, Upload] = {}
    source = options.source
    is_opened_by_board = source == "demo" or "://" in source
    if Path(source).is_file():
        files["source"] = pack(Path(source), "source")
    elif Path(source).is_dir() or not is_opened_by_board:
        raise InputError(f"source '{one_line(source)}' is not a file: give one video or image to send to the boards")
    detector = None if options.detector is None else str(options.detector)
    if detector is not None and detector.endswith(ONNX_SUFFIX):
        files["detector"] = pack(Path(detector), "detector model")
    elif detector in (None, "yunet") and any(map(needs_detector, models)):
        yunet = yunet_upload(out)
        if yunet is not None:  # else the boards try to download it
            files["detector"] = yunet
    return files
