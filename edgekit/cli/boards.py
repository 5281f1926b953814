"""What the commands that use boards over SSH share: progress, results and failures, and files that boards need."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, by_stage, echo, lenient, one_line, progress_bar
from edgekit.errors import HostError
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.remote.hosts import Host
    from edgekit.remote.parallel import HostResult
    from edgekit.remote.payload import Upload


def raise_failures(results: Sequence[HostResult[Any]]) -> None:
    """Raise one error for all boards that failed. Of several boards, the error of each is printed on stderr first.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        HostError: At least one board failed.
    """
    failed = [done for done in results if done.error is not None and done.tried]
    if len(results) > 1:
        for done in failed:
            echo(one_line(f"{done.host.label}: {done.error}"), err=True)
    if any(done.interrupted for done in results):  # Ctrl-C decides the exit code, whatever failed before it
        raise KeyboardInterrupt
    if failed and len(results) == 1:
        raise HostError(f"{failed[0].host.label}: {failed[0].error}")
    if failed:
        not_tried = sum(not done.tried for done in results)
        rest = f", {not_tried} not tried" if not_tried else ""
        labels = ", ".join(done.host.label for done in failed)
        raise HostError(f"{len(failed)} of {len(results)} boards failed{rest}: {labels}")


def yunet_upload(out: Output) -> Upload | None:
    """Return YuNet's file, to send to boards without internet; None, with a warning, if it cannot be downloaded."""
    from edgekit.downloads import YUNET, UnavailableError, cached_download
    from edgekit.remote.payload import pack

    try:
        return pack(cached_download(YUNET, notify=out.say), "detector model")
    except UnavailableError as error:
        out.warn(f"{error}: the boards will try to download it")
        return None


def needs_detector(model: Path) -> bool:
    """Return whether a model classifies faces.

    True, too, if its contract cannot be read without onnxruntime: a detector that is not needed does no harm.
    """
    from edgekit.device.engines.engine import contract_in

    try:
        return contract_in(model).subject == "face"
    except ModuleNotFoundError:
        return True


class BoardReporter:
    """Prints messages of boards and their progress: one bar per board on a terminal, else one line per minute.

    `boards` is the number of boards that `finished` counts.
    """

    def __init__(self, out: Output, boards: int = 1) -> None:
        self._out = out
        self._bar = progress_bar(out)
        self._tasks: dict[str, Any] = {}  # rich's bar of each board, by label
        self._print_progress = by_stage(self._bar)  # without a terminal
        self._lock = threading.Lock()  # each board reports from a thread of its own
        self._boards = boards  # how many
        self._finished = 0  # how many of them have finished

    def __enter__(self) -> BoardReporter:
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def message(self, host: Host, text: str) -> None:
        """Print a line of a board, without wrapping it, so that a command in it can be copied."""
        text = f"{host.label}: {one_line(text)}"
        with self._lock:
            # The bars are in the way of the text only if both are on a terminal.
            has_bars = not self._bar.disable and self._out.is_terminal
            if not has_bars:
                self._out.say(text, indent=None)  # None: not wrapped
            else:
                self._print_above(text)

    def _print_above(self, text: str) -> None:
        """Print a line on stderr, above the bars if there are any."""
        with lenient(err=True):
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def finished(self, done: HostResult[Any]) -> None:
        """Remove the bar of a board and, of several boards, print on stderr how many have finished."""
        with self._lock:
            self._finished += 1
            if done.host.label in self._tasks:
                self._bar.remove_task(self._tasks.pop(done.host.label))
            if self._boards > 1:
                state = "done" if done.error is None else "failed"
                text = f"{done.host.label}: {state}, {self._finished} of {self._boards}"
                self._print_above(text)

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        """Show the progress of a board."""
        from rich.markup import escape

        text = f"{host.label}: {one_line(what)}"
        with self._lock:
            if self._bar.disable:
                self._print_progress(text, done, total or None)  # 0: unknown
                return
            if host.label not in self._tasks:
                self._tasks[host.label] = self._bar.add_task("", total=None)
            self._bar.update(self._tasks[host.label], description=escape(text), completed=done, total=total or None)
