"""A JPEG image of the next frame for each command `snapshot`."""

from __future__ import annotations

import secrets
import time
from typing import Any

from edgekit.device.accounting import Account
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.snapshots import Snapshots, image_name

# Shortest time between two images, however many commands arrive.
_MIN_PERIOD_S = 1.0


class CommandSnapshots(Snapshots, Sink):
    """Saves the next frame after a request, at most one per second.

    Attributes:
        latest: The name of the latest image; None before the first.
    """

    what = "snapshots by command"
    account_name = "command snapshots"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare to write; the arguments are those of `Snapshots`."""
        super().__init__(*arguments, **options)
        self.accounts: tuple[Account, ...] = (self.account,)
        self.latest: str | None = None
        self._requested = False
        self._saved_s = float("-inf")
        self._run_id = secrets.token_hex(4)
        self._count = 0

    def request(self) -> None:
        """Save the next frame; may be called from any thread."""
        self._requested = True

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Save the frame if it was requested."""
        self.update(frame, result)
        if not self._requested or time.monotonic() - self._saved_s < _MIN_PERIOD_S:
            return
        self._requested, self._saved_s, self._count = False, time.monotonic(), self._count + 1
        name = image_name(frame.wall_s, "snapshot", f"{self._run_id}-{self._count}", result.clock_synchronised)
        if self.save(name, frame, result):
            self.latest = name
