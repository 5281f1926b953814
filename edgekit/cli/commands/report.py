"""`edgekit report`: shows benchmark reports, merges them and writes them in other forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output
from edgekit.report import ReportOptions
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.report.document import BenchmarkReport, BoardResult

_MAX_LABEL = 64


@edgekit_command(
    "report", short_help="Show benchmark reports, merge them, or write them as a page.", files=ReportOptions
)
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="REPORT.json...")
def command(out: Output, paths: tuple[Path, ...], files: ReportOptions) -> None:
    """Show reports of `edgekit bench`, or write them in another form. Several reports are merged into one.

    In a merged report, each board needs its own label. A board whose label is missing or is also that of another board
    gets the name of its file as label. If its report has several boards, the name of the file is put before its label.

    Each report is first checked against the schema. Reports from other people are therefore safe to open.

    \b
    Examples:
      edgekit report report.json --html report.html
      edgekit report kitchen.json garden.json -o both.json --html both.html
    """
    from edgekit.report.document import merge, read_document
    from edgekit.report.view import frame_rates, report_view

    if twice := [path for path in paths if paths.count(path) > 1]:
        raise click.UsageError(f"report '{twice[0]}' is given twice")
    reports = [read_document(path) for path in paths]
    report = reports[0] if len(reports) == 1 else merge(reports, _labels(paths, reports))
    with ExitStack() as stack:
        write_report = files.open(stack)
        write_report(report)
    out.show(*frame_rates(report), *report_view(report))
    out.result(report.as_document())


def _labels(paths: Sequence[Path], reports: Sequence[BenchmarkReport]) -> list[list[str | None]]:
    """Return the labels of each report's boards, with the name of its file where a label is missing or repeated."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.with_suffix("")) for path in paths]
    count: Counter[str] = Counter()  # how often each label would occur
    for name, report in zip(names, reports, strict=True):
        # A board without a label counts by the name of its file, so that no other board keeps a label of this name.
        count.update(board.label or name for board in report.boards)
    labels = []
    for name, report in zip(names, reports, strict=True):
        is_single = len(report.boards) == 1
        labels.append([_label(board, count, name, is_single) for board in report.boards])
    return labels


def _label(board: BoardResult, count: Mapping[str, int], name: str, is_single: bool) -> str | None:
    """Return the board's label if no other board has it, else one made from `name`, that of its report's file."""
    if board.label is not None and count[board.label] == 1:
        return board.label
    unique = name if is_single else f"{name} {board.label or ''}".rstrip()
    return printable(unique)[-_MAX_LABEL:]  # the end of a path identifies it better than its beginning
