"""Options of the commands that write reports, and the class that writes the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import PATH, combined

if TYPE_CHECKING:
    from edgekit.report.document import BenchmarkReport

_SUFFIXES = {"json_path": ".json", "html_path": ".html", "markdown_path": ".md", "csv_path": ".csv"}
# --html, --markdown and --csv.
report_options = combined(
    click.option("--html", "html_path", type=PATH, metavar="FILE", help="Write one self-contained HTML page."),
    click.option("--markdown", "markdown_path", type=PATH, metavar="FILE", help="Write the tables as Markdown."),
    click.option("--csv", "csv_path", type=PATH, metavar="FILE", help="Write CSV, one line per cell."),
)


@dataclass(frozen=True)
class ReportFiles:
    """The file for each format of a report; None: the report is not written in that format."""

    json_path: Path | None
    html_path: Path | None
    markdown_path: Path | None
    csv_path: Path | None

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [path for path in astuple(self) if path is not None]

    def check(self) -> None:
        """Check that the suffix of each file matches its format.

        Raises:
            InputError: The suffix of a file does not match its format.
        """
        from edgekit.errors import InputError

        for name, suffix in _SUFFIXES.items():
            path = getattr(self, name)
            if path is not None and path.suffix != suffix:
                raise InputError(f"report '{path}' must end in {suffix}")

    def open(self, stack: ExitStack) -> Callable[[BenchmarkReport], None]:
        """Reserve all files, and return a function that writes a report to them.

        A file that cannot be written therefore raises an error before the measurement. The files appear when the stack
        closes without an error, and only if the function was called. If that fails, because the disk became full
        meanwhile, the caller must still print the report: a measurement takes long.
        """
        from edgekit.files import atomic_path

        reserved = {path: stack.enter_context(atomic_path(path)) for path in self.paths}

        def write(report: BenchmarkReport) -> None:
            for path, temporary in reserved.items():
                temporary.write_text(self._text(path, report), "utf-8", "backslashreplace")

        return write

    def _text(self, path: Path, report: BenchmarkReport) -> str:
        if path == self.html_path:
            from edgekit.report.page import to_html

            return to_html(report)
        if path == self.markdown_path:
            from edgekit.report.text import to_markdown

            return to_markdown(report)
        if path == self.csv_path:
            from edgekit.report.text import to_csv

            return to_csv(report)
        return json.dumps(report.as_document(), indent=1, allow_nan=False) + "\n"
