"""The interface of sinks: consumers of frames and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from edgekit.device.accounting import Account
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame


@dataclass(frozen=True)
class SinkOptions:
    """Arguments of the function that creates a registered sink.

    Attributes:
        value: The text after the sink's name in `--sink NAME:VALUE`.
        source_name: The name of the source in messages.
        fps: The source's nominal frame rate, None if unknown.
        labels: The model's labels.
        notify: Called with one line that the user should read.
    """

    value: str
    source_name: str
    fps: float | None
    labels: Sequence[str]
    notify: Callable[[str], None]


class Sink(Protocol):
    """Receives every frame with its result, in a `with` block. Files are created by the first `write`, not before.

    A sink that opens and closes nothing inherits `__enter__` and `__exit__` from this class.

    Attributes:
        accounts: Numbers of items that the sink received, wrote and dropped; empty for a sink that cannot lose items.
    """

    accounts: Sequence[Account] = ()

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


def accounts_of(sinks: Iterable[Sink]) -> list[Account]:
    """Return the accounts of all sinks; a sink of another package may have none."""
    return [account for sink in sinks for account in getattr(sink, "accounts", ())]
