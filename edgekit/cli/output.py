"""What all commands share: the options --json, --debug and -q, and where output goes."""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgekit.text import one_line as one_line
from edgekit.text import printable as printable

if TYPE_CHECKING:
    from rich.console import Console

# Tables get so many in a narrower terminal, too.
_LEAST_COLUMNS = 60


@dataclass(frozen=True)
class Output:
    """Where a command speaks: text for people, one JSON document for machines.

    With `--json` the document goes to stdout and people's text to stderr; without it the text goes to stdout.
    """

    as_json: bool
    quiet: bool

    @property
    def console(self) -> Console:
        """A rich console for tables and progress: stderr with --json, silent with -q."""
        from rich.console import Console

        console = Console(stderr=self.as_json, quiet=self.quiet)
        # Lines that a narrow terminal breaks can be read, columns of one letter cannot.
        console.width = max(console.width, _LEAST_COLUMNS)
        return console

    @property
    def progress_console(self) -> Console:
        """A rich console for progress bars: always stderr."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet)

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.quiet:
            click.echo(printable(text), err=self.as_json)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also with -q."""
        click.echo(f"edgekit: warning: {one_line(text)}", err=True)

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the command's one JSON document, if asked for."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, allow_nan=False))
            sys.stdout.flush()


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --json, --debug and -q to a command and hand it an `Output` as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, text on stderr.")
    @click.option("--debug", is_flag=True, help="Show where an error came from.")
    @click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
    @functools.wraps(function)
    def wrapper(*args: Any, as_json: bool, debug: bool, quiet: bool, **kwargs: Any) -> None:
        del debug  # read in edgekit.cli.main, which is also there when parsing fails
        function(Output(as_json, quiet), *args, **kwargs)

    return wrapper


def describe_os_error(error: OSError) -> str:
    """Return one line that says what failed on which file, and for a full disk what to do."""
    where = f"'{error.filename}': " if error.filename else ""
    cure = ": free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{where}{error.strerror or error}{cure}"
