"""The interface of sinks: consumers of frames and their results, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

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
        ...


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
