"""What the tests of all sinks have in common."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

# How long the end of a run, or an outlet of an event, waits for the threads of sinks.
_TIMEOUTS = (
    *("batches._CLOSE", "collect._CLOSE", "h264_recorder._CLOSE", "recorder._CLOSE", "snapshots._CLOSE"),
    *("snapshots._WAIT", "webhook._CLOSE", "mqtt.sink._CLOSE", "mqtt.sink._FLUSH", "mqtt.sink._SAVE"),
)


@pytest.fixture(autouse=True)
def patient_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no sink give up its thread at the end: on a busy machine the users' second or two can pass before it runs.

    A test of a thread that is given up sets its own time.
    """
    for name in _TIMEOUTS:
        module, _, timeout = name.rpartition(".")
        suffix = "_S" if timeout == "_WAIT" else "_TIMEOUT_S"
        monkeypatch.setattr(f"edgekit.device.sinks.{module}.{timeout}{suffix}", PATIENCE_S)


@pytest.fixture
def killed_write() -> Callable[[Path], None]:
    """Return a function that leaves what remains of a file when its process is killed while it writes the file."""
    code = (
        "import os, sys; from pathlib import Path; from edgekit.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary: temporary.write_text('a part'); os._exit(0)"
    )

    def write(path: Path) -> None:
        subprocess.run([sys.executable, "-c", code, path], check=True)

    return write
