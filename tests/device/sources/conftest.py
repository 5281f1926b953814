"""What the tests of all sources have in common."""

from __future__ import annotations

import pytest

from edgekit.device.sources import live
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def patient_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a source wait for its thread at the end: on a busy machine two seconds can pass before the device is closed.

    A test of a thread that is given up sets its own time.
    """
    monkeypatch.setattr(live, "_JOIN_S", PATIENCE_S)
