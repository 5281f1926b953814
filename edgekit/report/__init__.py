"""Benchmark reports: the files that a command writes; document, statistics, text, HTML page and comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import InputError
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.report.document import BenchmarkReport


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """The files of a report."""

    title = "Report"
    json_path: Path | None = option("--output", "Write the report as JSON.", short="-o", metavar="FILE")
    html_path: Path | None = option("--html", "Write one self-contained HTML page.", metavar="FILE")

    def __post_init__(self) -> None:
        for path, suffix in ((self.json_path, ".json"), (self.html_path, ".html")):
            if path is not None and path.suffix != suffix:
                raise InputError(f"report '{path}' must end in {suffix}")

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [path for path in (self.json_path, self.html_path) if path is not None]

    def open(self, stack: ExitStack) -> Callable[[BenchmarkReport], None]:
        """Make a temporary file beside each file, and return a function that writes a report to the temporary files.

        A folder that cannot be written therefore raises an error before the measurement. When the stack closes without
        an error, the temporary files get their final names. The function must have been called before, else the files
        are empty. If the renaming fails, because the disk became full meanwhile, the caller must still print the
        report: a measurement takes long.
        """
        from edgekit.files import atomic_path

        temporary_paths = {path: stack.enter_context(atomic_path(path)) for path in self.paths}
        return partial(self._write, temporary_paths)

    def _write(self, temporary_paths: Mapping[Path, Path], report: BenchmarkReport) -> None:
        """Write a report; `temporary_paths` has the temporary file of each file."""
        for path, temporary in temporary_paths.items():
            # The name of a file may contain bytes that are not UTF-8.
            temporary.write_text(self._text(path, report), "utf-8", "backslashreplace")

    def _text(self, path: Path, report: BenchmarkReport) -> str:
        if path == self.html_path:
            from edgekit.report.page import to_html

            return to_html(report)
        return json.dumps(report.as_document(), indent=1, allow_nan=False) + "\n"
