"""`edgekit bench MODEL --formats`: one table of a model's formats, measured here or on boards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.boards.bench import bench_files_on_hosts
from edgekit.cli.output import Output, echo, one_line
from edgekit.device.benchmark.options import BenchmarkOptions
from edgekit.errors import HostError
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.cli.render.reports import ReportOptions
    from edgekit.remote.host_options import InstallingHostOptions
    from edgekit.remote.hosts import Host
    from edgekit.report.document import BenchmarkReport

_NEEDED = "--formats"


@dataclass(frozen=True, kw_only=True)
class FormatsOptions(Options):
    """The formats to compare, and the data of their accuracy."""

    title = "Formats"
    formats: tuple[str, ...] | None = option(
        "--formats",
        "Export MODEL in these formats and measure each: float32, int8-qdq, int8-qoperator, fp16, ncnn, ncnn-fp16.",
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
    options: BenchmarkOptions,
    chosen: FormatsOptions,
    files: ReportOptions,
    boards: InstallingHostOptions,
    hosts: Sequence[Host],
    measure_here: Callable[[Output, BenchmarkOptions], BenchmarkReport],
) -> None:
    """Run `bench --formats`; `measure_here` measures files on this machine.

    Raises:
        click.UsageError: An option is missing.
        InputError: The model or the data cannot be used, or there are too many boards.
        HostError: A board failed; the table of the others is printed first.
        KeyboardInterrupt: Ctrl-C was pressed; the table of the finished boards is printed first.
    """
    assert isinstance(options.models, tuple)
    assert chosen.formats is not None
    if chosen.data is None:
        raise click.UsageError("--formats needs a data set for accuracy and calibration: use --data DATA")
    if len(options.models) > 1:
        raise click.UsageError("--formats takes one MODEL")
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.cli.render.formats import formats_document, show_formats
    from edgekit.export.formats import FORMATS, KIND, benchmark_formats
    from edgekit.remote.parallel import INTERRUPTED
    from edgekit.report.schema import check_fits

    check_fits(boards=len(hosts))
    found = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            bars = stack.enter_context(progress_bar(out))

            def measure(paths: Mapping[str, Path]) -> BenchmarkReport:
                bars.stop()  # the measurement has a display of its own
                if hosts:
                    return bench_files_on_hosts(out, replace(options, kinds=[KIND]), boards, hosts, paths)
                names = {str(path): name for name, path in paths.items()}
                report_name = names.__getitem__
                return measure_here(out, replace(options, models=list(names), kinds=[KIND], report_name=report_name))

            found = benchmark_formats(
                options.models[0],
                chosen.data,
                formats=tuple(FORMATS) if chosen.formats == ("all",) else chosen.formats,
                target=chosen.target or ("generic" if hosts else None),
                measure=measure,
                progress=by_stage(bars),
                notify=out.say,
            )
            write(found.report)
    finally:
        if found is not None:
            show_formats(out, found, str(chosen.data))
            out.result(formats_document(found))
    errors = [f"{host.label}: {host.error}" for host in found.report.hosts if host.error not in (None, INTERRUPTED)]
    if any(host.error == INTERRUPTED for host in found.report.hosts):
        for line in errors:
            echo(one_line(line), err=True)
        raise KeyboardInterrupt
    if errors:
        raise HostError("; ".join(errors))
