"""The interface of sinks, which consume frames and their results; their options, and their passwords and tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.options import Options

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext


# The target of an output that is standard output.
STDOUT = "-"


class Sink(Protocol):
    """Receives every frame with its result, in a `with` block. Files are created by the first `write`, not before.

    A sink that opens and closes nothing inherits `__enter__` and `__exit__` from this class.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Process one frame and its result.

        Raises:
            StorageError: The result cannot be stored.
        """


class SinkOptions(Options):
    """Base of the options of one sink, declared beside it; `edgekit.device.registry` lists these classes.

    The module is imported for `edgekit run --help`: it imports OpenCV and other slow packages inside of functions.
    """

    def files(self) -> list[Path]:
        """Return the files to which one run only may write."""
        return []

    def folders(self) -> list[Path]:
        """Return the folders to which one run only may write."""
        return []

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, not yet entered; None if it is not requested.

        Raises:
            InputError: The sink cannot be created with these options.
            TemporaryError: What the sink needs is missing at the moment.
        """
        del run
        return None


_GROUP_AND_OTHERS = 0o077
_MAX_BYTES = 4096


def read_secret(path: Path | None, variable: str, what: str, notify: Callable[[str], None]) -> str | None:
    """Return the first line of the file `path`, else the environment variable `variable`, else None.

    `what` names the secret in messages. `notify` receives a warning if other users can read the file.

    Raises:
        InputError: The file cannot be read, or its first line or the variable is not text.
    """
    if path is None:
        value = os.environb.get(variable.encode())
        # An empty variable counts as unset.
        return _decoded(value, f"{variable} must be the {what} in one line of plain text") if value else None
    require_file(path, f"{what} file")
    with path.open("rb") as stream:
        first_line = stream.read(_MAX_BYTES).partition(b"\n")[0]
    secret = _decoded(first_line, f"{what} file '{path}': the first line must be the {what} in plain text")
    if path.stat().st_mode & _GROUP_AND_OTHERS:
        notify(f"other users can read the {what} in '{path}': run chmod 600 on it")
    return secret


def _decoded(data: bytes, message: str) -> str:
    """Return a secret without surrounding spaces; raise InputError(`message`) if it is empty or not plain text."""
    try:
        secret = data.decode().strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret or not secret.isprintable():
        raise InputError(message)
    return secret
