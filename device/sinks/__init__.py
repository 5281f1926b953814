"""Where results go. Importing this package loads none of the sinks."""

from __future__ import annotations

from typing import Protocol, Self

from edgekit.device.results import FrameResult
from edgekit.device.sources.frame import Frame


class Sink(Protocol):
    """Takes every frame with its result, in a `with` block; nothing is created before the first one comes."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take one frame and its result.

        Raises:
            StorageError: It cannot be written.
        """
        ...
