"""What the tests of all sinks have in common."""

from __future__ import annotations

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
