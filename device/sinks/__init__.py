"""Where results go. Importing this package loads none of the sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame


@dataclass(frozen=True)
class SinkOptions:
    """What a registered sink is made from.

    `value` is what the user wrote behind the sink's name, `fps` the source's nominal rate or None, `labels` those of
    the model, and `notify` takes one line that the user should read.
    """

    value: str
    source_name: str
    fps: float | None
    labels: Sequence[str]
    notify: Callable[[str], None]


class Sink(Protocol):
    """Takes every frame with its result, in a `with` block; nothing is created before the first one comes.

    Who has nothing to open or to close inherits this.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take one frame and its result.

        Raises:
            StorageError: It cannot be written.
        """
        ...
