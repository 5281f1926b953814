"""Results in a window on the board's own screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Self

import cv2

from edgekit.device.annotate import draw_faces
from edgekit.device.results import FrameResult
from edgekit.device.sources.frame import Frame
from edgekit.errors import InputError

_TITLE = "edgekit (q to quit)"
_KEYS_TO_QUIT = (ord("q"), 27)


class WindowSink:
    """Shows every frame with its faces drawn in; q, Escape or closing the window calls `on_quit`."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        """Open the window.

        Raises:
            InputError: There is no display, or this OpenCV has no windows.
        """
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("--show needs a display and there is none here: record a video with --save instead")
        self._on_quit = on_quit
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise InputError(
                "--show needs an OpenCV with windows: pip uninstall opencv-python-headless, "
                "then pip install 'edgekit[window]'; or record a video with --save"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        cv2.destroyAllWindows()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Show the frame."""
        cv2.imshow(_TITLE, draw_faces(frame.image_bgr, result.faces))
        if cv2.waitKey(1) & 0xFF in _KEYS_TO_QUIT or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._on_quit()
