"""Options of the commands that write reports, and the writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., None])
_FORMS = (("html_path", ".html"), ("markdown_path", ".md"), ("csv_path", ".csv"))


def report_options(function: _Function) -> _Function:
    """Add --html, --markdown and --csv."""
    file = click.Path(path_type=Path)
    decorators = (
        click.option("--html", "html_path", type=file, metavar="FILE", help="Write it as one self-contained page."),
        click.option("--markdown", "markdown_path", type=file, metavar="FILE", help="Write its tables as Markdown."),
        click.option("--csv", "csv_path", type=file, metavar="FILE", help="Write a line a cell as CSV."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


@dataclass(frozen=True)
class ReportFiles:
    """Where a report goes, by form; None where it does not."""

    json_path: Path | None
    html_path: Path | None
    markdown_path: Path | None
    csv_path: Path | None

    def check(self) -> None:
        """Refuse names that do not say what is in the file.

        Raises:
            InputError: A file's ending is another.
        """
        from edgekit.errors import InputError

        for name, suffix in (("json_path", ".json"), *_FORMS):
            path = getattr(self, name)
            if path is not None and path.suffix != suffix:
                raise InputError(f"report '{path}' must end in {suffix}")

    def open(self, stack: ExitStack) -> Callable[[dict[str, Any]], None]:
        """Reserve all files, so that one that cannot be written is not found out after an hour; return the writer.

        The files appear when the stack closes without an error, and only if the writer was called.
        """
        from edgekit.files import atomic_path

        kept = [path for path in (self.json_path, self.html_path, self.markdown_path, self.csv_path) if path]
        reserved = {path: stack.enter_context(atomic_path(path)) for path in kept}

        def write(document: dict[str, Any]) -> None:
            for path, temporary in reserved.items():
                temporary.write_text(self._text(path, document))

        return write

    def _text(self, path: Path, document: dict[str, Any]) -> str:
        if path == self.html_path:
            from edgekit.report.page import to_html

            return to_html(document)
        if path == self.markdown_path:
            from edgekit.report.text import to_markdown

            return to_markdown(document)
        if path == self.csv_path:
            from edgekit.report.text import to_csv

            return to_csv(document)
        return json.dumps(document, indent=1, allow_nan=False) + "\n"
