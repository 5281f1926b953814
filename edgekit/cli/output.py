"""Output of the commands: text for people, one JSON document with --json, progress bars, and their streams."""

from __future__ import annotations

import errno
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgekit.text import TextTable as TextTable
from edgekit.text import one_line as one_line
from edgekit.text import printable as printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# Seconds between two lines of progress where no terminal shows a bar.
LINE_EVERY_S = 60.0
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
    def progress_console(self) -> Console:
        """A rich console for progress bars: always on stderr, silent with -q."""
        from rich.console import Console
        from rich.theme import Theme

        class PlainConsole(Console):
            def on_broken_pipe(self) -> None:  # rich's own ends the process and closes stdout
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        # Not rich's yellow, cyan and green, which are hardly legible on a light background.
        plain = {f"progress.{part}": "default" for part in ("download", "elapsed", "remaining")}
        return PlainConsole(stderr=True, quiet=self.quiet, theme=Theme(plain))

    @property
    def is_terminal(self) -> bool:
        """Whether the text for people is printed on a terminal."""
        return (sys.stderr if self.as_json else sys.stdout).isatty()

    def say(self, text: str, indent: int | None = 2, bold: bool = False) -> None:
        """Print text for people, unless -q is given.

        Args:
            text: One line or more.
            indent: On a terminal, longer lines are wrapped between words and go on after this many spaces; None: they
                are not wrapped, so that a command can be copied.
            bold: Whether a terminal shows the text in bold.
        """
        if self.quiet:
            return
        text = printable(text)
        if self.is_terminal:
            if indent is not None:
                text = "\n".join(_wrapped(line, indent) for line in text.split("\n"))
            text = click.style(text, bold=True) if bold else text
        echo(text, err=self.as_json)  # with --json, stdout has only the document

    def fields(self, fields: Iterable[tuple[str, str | None]]) -> None:
        """Print one line per labelled text, except for those that are None.

        A text is one line, because a line break in a name must not look like another field.
        """
        shown = [(label, text) for label, text in fields if text is not None]
        width = max(len(label) for label, _ in shown)
        for label, text in shown:
            self.say(f"{label:<{width}}  {one_line(text)}", indent=width + 2)

    def show(self, *parts: str | TextTable) -> None:
        """Print lines of text, and tables that have rows; on a terminal they are folded to its width."""
        for part in parts:
            if isinstance(part, str):
                self.say(part)
            elif part.rows:
                # Not wrapped by `say`, because `lines` has folded the cells. The first line has the titles.
                titles, *rows = part.lines(_columns(_MIN_TABLE_COLUMNS) if self.is_terminal else None)
                if part.title:
                    self.say("")
                    self.say(one_line(part.title), bold=True)
                self.say(titles, indent=None, bold=True)
                self.say("\n".join(rows), indent=None)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also with -q; an error of stderr is ignored."""
        echo(f"edgekit: warning: {one_line(text)}", err=True)

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the command's JSON document if --json is given."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, allow_nan=False))
            sys.stdout.flush()


@contextmanager
def reported(out: Output) -> Iterator[dict[str, Any]]:
    """Yield the arguments `progress` and `notify` of a function of the Python API: bars by stage, and printed lines."""
    with progress_bar(out) as bars:
        yield {"progress": by_stage(bars), "notify": out.say}


def is_progress_shown() -> bool:
    """Return whether `progress_bar` would show anything, without importing rich."""
    return sys.stderr.isatty()


def progress_bar(out: Output) -> Progress:
    """Return a rich progress display with the remaining time; it draws only on a terminal and not with -q."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = out.progress_console
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Without a terminal rich would print an empty line.
        disable=not console.is_terminal,
    )


def updater(progress: Progress, description: str) -> Callable[[float, float | None], None]:
    """Add a bar to a progress display, and return the function that moves it; it receives (done, total or None)."""
    task = progress.add_task(description, total=None)

    def update(done: float, total: float | None) -> None:
        progress.update(task, completed=done, total=total)

    return update


def by_stage(
    progress: Progress, clock: Callable[[], float] = time.monotonic
) -> Callable[[str, float, float | None], None]:
    """Return a function that shows the progress of work in stages; it receives (stage, done, total or None).

    On a terminal, each stage has a bar. Without a terminal, one line per minute and stage is printed on stderr.
    """
    return _StageProgress(progress, clock).update


class _StageProgress:
    """The function that `by_stage` returns, with the bars and the times of its lines."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._bars: dict[str, Callable[[float, float | None], None]] = {}  # what moves each stage's bar
        # When the last line of each stage was printed; before its first line, when the stage began.
        self._last_line_s: dict[str, float] = {}

    def update(self, stage: str, done: float, total: float | None) -> None:
        """Move the bar of a stage, or print a line if there is no terminal and the last line is a minute old.

        `total` is None if it is not known.
        """
        now_s = self._clock()
        if stage not in self._bars:
            self._bars[stage] = updater(self._progress, stage)
            self._last_line_s[stage] = now_s
        self._bars[stage](done, total)
        # Disabled: there is no terminal. Quiet: -q.
        prints_lines = self._progress.disable and not self._progress.console.quiet
        if prints_lines and now_s - self._last_line_s[stage] >= LINE_EVERY_S:
            self._last_line_s[stage] = now_s
            amount = f"{done / total:.0%}" if total else f"{done:g}"
            echo(printable(f"{stage}: {amount}"), err=True)


def picked(source: object, *names: str) -> dict[str, Any]:
    """Return attributes of an object by name, for a JSON document; None for an attribute that it does not have."""
    return {name: getattr(source, name, None) for name in names}


def echo(text: str, err: bool) -> None:
    """Print text on stdout, or with `err` on stderr, whose errors are ignored."""
    with lenient(err):
        # Not click.echo, which writes past rich, onto the line of a progress bar.
        print(text, file=sys.stderr if err else sys.stdout, flush=True)


def lenient(err: bool) -> AbstractContextManager[None]:
    """Return a block that ignores the errors of stderr: a log on a full disk must not end what survives a full disk."""
    return suppress(OSError) if err else nullcontext()


def _wrapped(line: str, indent: int) -> str:
    """Return a line wrapped to the width of the terminal; further lines begin with `indent` spaces."""
    indentation, columns = " " * indent, _columns(_MIN_COLUMNS)
    return textwrap.fill(line, columns, subsequent_indent=indentation, break_long_words=False, break_on_hyphens=False)


def _columns(least: int) -> int:
    """Return the width of the terminal, or `least` if it is narrower."""
    import shutil  # slow to import: it imports all compression modules

    return max(shutil.get_terminal_size().columns, least)


def describe_os_error(error: OSError) -> str:
    """Return one line with the file, the error, and for a full disk or a long name the cure."""
    where = f"'{error.filename}': " if error.filename else ""
    cures = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.ENAMETOOLONG: "use a shorter name"}
    cure = f": {cures[error.errno]}" if error.errno in cures else ""
    return f"{where}{error.strerror or error}{cure}"
