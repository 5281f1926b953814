"""`edgekit report`: benchmark reports, one or several, in other forms."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edgekit.cli.output import Output, common_options
from edgekit.cli.render.reports import ReportFiles, report_options


@click.command("report", short_help="Show benchmark reports, merge them, write them as a page.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPORT.json...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write them as one JSON document."
)
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
    """Show what `edgekit bench` wrote, or write it in another form; several reports become one.

    Every report is checked against the schema first, so that one from elsewhere can be looked at safely.

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
    documents = [read_document(path) for path in paths]
    document = documents[0] if len(documents) == 1 else merge(documents)
    with ExitStack() as stack:
        files.open(stack)(document)
    out.console.print(report_view(document))
    out.result(document)
