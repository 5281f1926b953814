"""`edgekit report`: shows benchmark reports, merges them and writes them in other forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.output import Output, common_options
from edgekit.cli.render.reports import ReportFiles, report_options
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.report.document import BenchmarkReport

_MAX_LABEL = 64


@click.command("report", short_help="Show benchmark reports, merge them, or write them as a page.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPORT.json...")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write one JSON document.")
@report_options
@common_options
def command(
    out: Output,
    paths: tuple[Path, ...],
    output: Path | None,
    html_path: Path | None,
    markdown_path: Path | None,
    csv_path: Path | None,
) -> None:
    """Show reports of `edgekit bench`, or write them in another form. Several reports are merged into one.

    In a merged report, a board gets the name of its file as label if it has no label, or the label of another board.

    Each report is first checked against the schema. Reports from other people are therefore safe to open.

    \b
    Examples:
      edgekit report report.json --html report.html
      edgekit report kitchen.json garden.json -o both.json --markdown both.md
    """
    from edgekit.report.merging import merge
    from edgekit.report.schema import read_document
    from edgekit.report.terminal import report_view

    files = ReportFiles(output, html_path, markdown_path, csv_path)
    files.check()
    reports = [read_document(path) for path in paths]
    report = reports[0] if len(reports) == 1 else merge(reports, _labels(paths, reports))
    with ExitStack() as stack:
        files.open(stack)(report)
    out.console.print(report_view(report))
    out.result(report.as_document())


def _labels(paths: Sequence[Path], reports: Sequence[BenchmarkReport]) -> list[str | None]:
    """Return the label for the board of each report, from the name of its file; None if the boards have labels.

    A label that several boards have is replaced, too, because tables could not tell these boards apart.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.with_suffix("")) for path in paths]
    count = Counter(board.label for report in reports for board in report.boards)
    return [
        printable(name)[-_MAX_LABEL:]
        if len(report.boards) == 1 and (report.boards[0].label is None or count[report.boards[0].label] > 1)
        else None
        for name, report in zip(names, reports, strict=True)
    ]
