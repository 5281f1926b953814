"""Where sinks write their lines: directly to a file, or in batches by a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgekit.device.accounting import Account
from edgekit.device.sinks.batches import BatchedLines
from edgekit.device.sinks.line_file import STDOUT, LineFile
from edgekit.device.sinks.rotation import Rotation


class Lines(Protocol):
    """Interface of the writers of whole lines. Every file begins with `header`, which is one line or ""."""

    header: str
    account: Account

    def write(self, text: str, records: int = 1) -> None:
        """Append whole lines that hold this number of records.

        Raises:
            StorageError: The lines cannot be written.
        """
        ...

    def close(self) -> None:
        """Write what is buffered and close the file."""
        ...


def open_lines(target: str, rotation: Rotation, live: bool, notify: Callable[[str], None], name: str) -> Lines:
    """Return the writer for `target`, a file or `-` for stdout; `name` is that of its account.

    Lines of a live source are written in batches by a thread, and a run survives a full or read-only disk. Lines of a
    recording are written at once, and a disk error ends the run.

    Raises:
        InputError: `target` is a folder, or named like an image or a model.
    """
    lines = LineFile(target, rotation, name=name, notify=notify)
    return BatchedLines(lines, f"recording to '{target}'", notify) if live and target != STDOUT else lines
