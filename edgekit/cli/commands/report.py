"""`edgekit report`: shows benchmark reports, merges them and writes them in other forms."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edgekit.cli.output import Output, common_options
from edgekit.cli.render.reports import ReportFiles, report_options


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
    report = reports[0] if len(reports) == 1 else merge(reports)
    with ExitStack() as stack:
        files.open(stack)(report)
    out.console.print(report_view(report))
    out.result(report.as_document())
