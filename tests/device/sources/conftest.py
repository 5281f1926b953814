"""Fixtures for the tests of all sources."""

from __future__ import annotations

import pytest

from edgekit.device.sources import live
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def patient_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeout for the thread of a source: on a busy machine, 2 s can be too short to close the device.

    A test of an abandoned thread sets its own timeout.
    """
    monkeypatch.setattr(live, "JOIN_S", PATIENCE_S)
