"""The window: a one-line error where it cannot be opened."""

from __future__ import annotations

import cv2
import pytest

from edgekit.device.sinks.window import WindowSink
from edgekit.errors import InputError


@pytest.fixture(autouse=True)
def a_display_that_nobody_serves(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def refuse() -> None:
    pytest.fail("nobody may quit")


@pytest.mark.skipif("GUI:                           NONE" not in cv2.getBuildInformation(), reason="OpenCV has windows")
def test_the_error_of_a_headless_opencv_names_the_extra_with_windows():
    with pytest.raises(InputError, match="pip install"):
        WindowSink(refuse)
