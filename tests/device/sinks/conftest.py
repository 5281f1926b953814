"""Fixtures for the tests of all sinks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

# The timeouts with which the end of a run, or the delivery of an event, waits for the threads of sinks.
_TIMEOUTS = (
    *("lines._CLOSE", "collect._CLOSE", "h264_recorder._CLOSE", "recorder._CLOSE", "snapshots._CLOSE"),
    *("snapshots._WAIT", "webhook._CLOSE", "mqtt.sink._CLOSE", "mqtt.sink._FLUSH", "mqtt.sink._SAVE"),
)


@pytest.fixture(autouse=True)
def patient_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeouts for threads of sinks: on a busy machine, a thread can need more than the default of 0.5-2 s.

    A test of an abandoned thread sets its own timeout.
    """
    for name in _TIMEOUTS:
        module, _, timeout = name.rpartition(".")
        suffix = "_S" if timeout == "_WAIT" else "_TIMEOUT_S"
        monkeypatch.setattr(f"edgekit.device.sinks.{module}.{timeout}{suffix}", PATIENCE_S)


@pytest.fixture
def killed_write() -> Callable[[Path], None]:
    """Return a function that leaves the temporary file of a process that was killed during a write."""
    code = (
        "import os, sys; from pathlib import Path; from edgekit.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary: temporary.write_text('a part'); os._exit(0)"
    )

    def write(path: Path) -> None:
        subprocess.run([sys.executable, "-c", code, path], check=True)

    return write
