"""`--show`: frames and their results in a window."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext

_TITLE = "edgekit (q to quit)"
_KEYS_TO_QUIT = (ord("q"), 27)


@dataclass(frozen=True, kw_only=True)
class WindowOptions(SinkOptions):
    """Options of the window."""

    title = "Results"

    show: bool = option("--show", "Show the frames in a window.", default=False, main=True)

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, which ends the run when its window is closed.

        Raises:
            InputError: There is no display, or this OpenCV is headless.
        """
        return WindowSink(run.source.stop) if self.show else None


class WindowSink(Sink):
    """Shows every frame with boxes and labels; q, Escape or closing the window calls `on_quit`."""

    def __init__(self, on_quit: Callable[[], None]) -> None:
        """Open the window; raises as `WindowOptions.open`."""
        import cv2

        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("--show needs a display, and none is set: use --web or --save instead")
        self._on_quit = on_quit
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            from edgekit.install_hint import install_command

            raise InputError(
                "--show needs an OpenCV with windows: run pip uninstall opencv-python-headless, "
                f"then {install_command('window')}; or use --web or --save"
            ) from error

    def __exit__(self, *exception: object) -> None:
        import cv2

        cv2.destroyAllWindows()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Show the frame."""
        import cv2

        from edgekit.device.annotate import draw_faces

        cv2.imshow(_TITLE, draw_faces(frame.image_bgr, result.faces, result.faces.zones))
        # `waitKey` also draws the window, for 1 ms; the lower 8 bits of its result are the key.
        if cv2.waitKey(1) & 0xFF in _KEYS_TO_QUIT or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._on_quit()
