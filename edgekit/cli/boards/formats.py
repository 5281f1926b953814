"""`edgekit bench MODEL --formats`: one table of a model's formats, measured here or on boards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.boards.bench import bench_files_on_hosts
from edgekit.cli.boards.hosts import HostChoice
from edgekit.cli.options import PATH, combined, refuse_unused
from edgekit.cli.output import Output, echo, one_line
from edgekit.errors import HostError

if TYPE_CHECKING:
    from edgekit.cli.render.reports import ReportFiles
    from edgekit.report.document import BenchmarkReport, Kind

# Parameters that have no effect without --formats.
FORMATS_PARAMETERS = ("data", "split", "target")
_UNUSED = ("pipeline", "source_uri", "detector_name", "detector_model", "detector_size", "power_file")

# The options of --formats; the names of the parameters are not passed to boards.
formats_options = combined(
    click.option(
        "--formats",
        metavar="all|NAME,NAME",
        help="Export MODEL in these formats and measure each: float32, int8-qdq, int8-qoperator, fp16, ncnn, "
        "ncnn-fp16.",
    ),
    click.option("--data", type=PATH, metavar="DATA", help="Data set for accuracy and calibration, with --formats."),
    click.option("--split", metavar="NAME", help="Split for accuracy; default: PrivateTest or test."),
    click.option(
        "--target",
        metavar="NAME",
        help="Processor of the files: generic, x86, a53, a72 or a76. Default: this machine's processor; with "
        "--host, generic.",
    ),
)


def bench_formats(
    out: Output,
    chosen: HostChoice,
    models: Sequence[str],
    files: ReportFiles,
    measure_here: Callable[[Sequence[str], Sequence[Kind], Callable[[str], str]], BenchmarkReport],
) -> None:
    """Run the current `bench --formats` command; `measure_here` measures models of some kinds, named by a function.

    Raises:
        click.UsageError: An option is missing or has no effect.
        InputError: The model or the data cannot be used, or there are too many boards.
        HostError: A board failed; the table of the others is printed first.
        KeyboardInterrupt: Ctrl-C was pressed; the table of the finished boards is printed first.
    """
    context = click.get_current_context()
    given = context.params
    refuse_unused(context, _UNUSED, "is not for --formats")
    if given["data"] is None:
        raise click.UsageError("--formats needs a data set for accuracy and calibration: use --data DATA", context)
    if len(models) > 1:
        raise click.UsageError("--formats takes one MODEL", context)
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.cli.render.formats import show_formats
    from edgekit.export.formats.run import FORMATS, benchmark_formats
    from edgekit.export.formats.table import KIND
    from edgekit.remote.parallel import INTERRUPTED
    from edgekit.report.schema import check_fits

    check_fits(boards=len(chosen.hosts))
    found = None
    try:
        with ExitStack() as stack:
            write = files.open(stack)
            bars = stack.enter_context(progress_bar(out))

            def measure(paths: Mapping[str, Path]) -> BenchmarkReport:
                bars.stop()  # the measurement has a display of its own
                if chosen.hosts:
                    return bench_files_on_hosts(out, chosen, paths)
                names = {str(path): name for name, path in paths.items()}
                return measure_here(list(names), [KIND], names.__getitem__)

            found = benchmark_formats(
                models[0],
                given["data"],
                formats=FORMATS if given["formats"] == "all" else given["formats"].split(","),
                target=given["target"] or ("generic" if chosen.hosts else None),
                split=given["split"],
                measure=measure,
                progress=by_stage(bars),
                notify=out.say,
            )
            write(found.report)
    finally:
        if found is not None:
            show_formats(out, found, str(given["data"]))
            out.result(found.as_document())
    errors = [f"{host.label}: {host.error}" for host in found.report.hosts if host.error not in (None, INTERRUPTED)]
    if any(host.error == INTERRUPTED for host in found.report.hosts):
        for line in errors:
            echo(one_line(line), err=True)
        raise KeyboardInterrupt
    if errors:
        raise HostError("; ".join(errors))
