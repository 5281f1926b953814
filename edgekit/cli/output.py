"""Output of the commands: text for people, one JSON document with --json, and the streams they are written to."""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgekit.text import one_line as one_line
from edgekit.text import printable as printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# Minimum widths of tables and of text, also in a narrower terminal.
_MIN_TABLE_COLUMNS = 80
_MIN_COLUMNS = 60


@dataclass(frozen=True)
class Output:
    """Text for people and one JSON document for programs.

    With `--json` the document is written to stdout and the text to stderr; without it the text is written to stdout.
    """

    as_json: bool
    quiet: bool

    @property
    def console(self) -> Console:
        """A rich console for tables: on stderr with --json, silent with -q."""
        console = _make_console(stderr=self.as_json, quiet=self.quiet)
        # Lines that a narrow terminal wraps are easier to read than columns of one letter or cut numbers.
        console.width = max(console.width, _MIN_TABLE_COLUMNS)
        return console

    @property
    def progress_console(self) -> Console:
        """A rich console for progress bars: always on stderr, silent with -q."""
        from rich.theme import Theme

        # Not rich's yellow, cyan and green, which are hardly legible on a light background.
        plain = {f"progress.{part}": "default" for part in ("download", "elapsed", "remaining")}
        return _make_console(stderr=True, quiet=self.quiet, theme=Theme(plain))

    def say(self, text: str, indent: int | None = 2) -> None:
        """Print text for people, unless -q is given.

        Args:
            text: One line or more.
            indent: On a terminal, longer lines are wrapped between words and go on after this many spaces; None: they
                are not wrapped, so that a command can be copied.
        """
        if self.quiet:
            return
        text = printable(text)
        if indent is not None and (sys.stderr if self.as_json else sys.stdout).isatty():
            text = "\n".join(_wrapped(line, indent) for line in text.split("\n"))
        echo(text, err=self.as_json)

    def field(self, label: str, text: str, label_width: int) -> None:
        """Print a field of a report; on one line, because a line break in a name must not look like another field."""
        self.say(f"{label:<{label_width}} {one_line(text)}", indent=label_width + 1)

    def show(self, table: RenderableType, min_columns: int = 0) -> None:
        """Print a table for people, on `console`, with room for `min_columns` also in a narrower terminal."""
        console = self.console
        console.width = max(console.width, min_columns)
        with lenient(self.as_json):
            console.print(table)

    def table(self, left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with columns of text on the left and of numbers on the right; nothing if there are no rows."""
        if not rows:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*left, box=None, pad_edge=False)
        for column in right:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            # Text: rich would parse a plain string as markup.
            table.add_row(*(Text(one_line(cell), overflow="fold") for cell in row))
        self.show(table)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also with -q; an error of stderr is ignored."""
        echo(f"edgekit: warning: {one_line(text)}", err=True)

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the command's JSON document if --json is given."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, allow_nan=False))
            sys.stdout.flush()


def _make_console(**options: Any) -> Console:
    """Return a rich console that raises BrokenPipeError; rich's own ends the process and closes stdout."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return PlainConsole(**options)


def echo(text: str, err: bool) -> None:
    """Print text on stdout, or with `err` on stderr, whose errors are ignored."""
    stream = sys.stderr if err else sys.stdout
    with lenient(err):
        if stream.isatty():
            # Not click.echo, which writes past rich, onto the line of a progress bar.
            print(text, file=stream, flush=True)
        else:
            click.echo(text, err=err)


def lenient(err: bool) -> AbstractContextManager[None]:
    """Return a block that ignores the errors of stderr: a log on a full disk must not end what survives a full disk."""
    return suppress(OSError) if err else nullcontext()


def _wrapped(line: str, indent: int) -> str:
    import shutil  # slow to import: it imports all compression modules

    columns = max(shutil.get_terminal_size().columns, _MIN_COLUMNS)
    return textwrap.fill(line, columns, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def describe_os_error(error: OSError) -> str:
    """Return one line with the file, the error, and for a full disk or a long name the cure."""
    where = f"'{error.filename}': " if error.filename else ""
    cures = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.ENAMETOOLONG: "use a shorter name"}
    cure = f": {cures[error.errno]}" if error.errno in cures else ""
    return f"{where}{error.strerror or error}{cure}"
