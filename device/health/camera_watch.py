"""Detects a live source that delivers no usable images: frozen, dark, covered, or none at all."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from edgekit.device.detections import FrameResult
from edgekit.device.frame import CameraState, Frame
from edgekit.device.sink import Sink
from edgekit.preprocess import ImageU8

# A sample of 640 x 480 takes 0.1 ms on a PC.
_SAMPLE_PERIOD_S = 0.5
# A state begins after this time. The encoder of a stream repeats the image of a still scene until the next key frame,
# commonly for up to 10 s.
BEGINS_AFTER_S = 30.0
# Without an image for this time, the source is lost. Its own messages name the reason earlier.
_LOST_AFTER_S = 15.0
# Points of a sample, and cells of the grid, whose means suppress the noise of the sensor.
_SAMPLE_WH = (128, 96)
_GRID_WH = (16, 12)
# The largest differences between neighbouring cells (the 99th percentile) in levels of 255: 63 and more in images and
# clips of faces, 20 in a clip out of focus, 30 for a face of 40 px before a blank wall, 11 and more at a tenth of the
# light; at most 6 in a uniform image with noise of 6 levels and a lens shading of 20 %.
_MIN_DETAIL = 8
_MAX_DARK_LEVEL = 32
# The place of the 99th percentile among the 356 differences, from the end.
_PERCENTILE_RANK = 4


class CameraWatch(Sink):
    """Sink that samples the images of a live source; `check` returns the state and reports each change.

    *frozen*: new images arrive, and all have the same pixels; the noise of a sensor changes some in every image.
    *dark* and *covered*: no structure is visible, in a dark or bright image. *lost*: no image arrives.

    Attributes:
        faults: How often each state other than "ok" has begun.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Watch a source from now on; `notify` receives one line at the begin and end of each state."""
        self._notify = notify
        self._seen_s = time.monotonic()
        self._sampled_s = float("-inf")
        self._sample: ImageU8 | None = None
        # What the latest samples show, and since when.
        self._shown: tuple[CameraState, float] = ("ok", 0.0)
        self._state: CameraState = "ok"
        self._began_s = 0.0
        self.faults: dict[str, int] = {}

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Sample the frame, if it is time."""
        del result
        self._seen_s = time.monotonic()
        if frame.monotonic_s - self._sampled_s < _SAMPLE_PERIOD_S:
            return
        self._sampled_s = frame.monotonic_s
        sample = _sample(frame)
        shown = _state_in(sample, self._sample)
        self._sample = sample
        if shown != self._shown[0]:
            self._shown = shown, frame.monotonic_s

    def idle(self) -> None:
        """Accept that no image arrives, during a pause of the run."""
        self._seen_s = time.monotonic()

    def check(self) -> CameraState:
        """Return the state now; called about once per second, by one thread."""
        now_s = time.monotonic()
        shown, since_s = self._shown
        # Without another reason the state stays, but an image ends "lost".
        state: CameraState = "ok" if self._state == "lost" else self._state
        if now_s - self._seen_s >= _LOST_AFTER_S:
            state = "lost"
        elif shown == "ok" or self._sampled_s - since_s >= BEGINS_AFTER_S:
            state = shown
        if state != self._state:
            self._change(state, self._seen_s if state == "lost" else since_s)
        return state

    def _change(self, state: CameraState, since_s: float) -> None:
        """Set the state that has begun at `since_s`, count a fault and report the change."""
        if state == "ok":
            lasted_s = time.monotonic() - self._began_s
            self._notify(f"the camera was {self._state} for {lasted_s:.0f} s, and delivers usable images again")
        else:
            if self._state == "ok":  # else one fault follows another, and their times are added
                self._began_s = since_s
            self.faults[state] = self.faults.get(state, 0) + 1
            self._notify(f"the camera is {_MEANINGS[state]}: no events until this ends")
        self._state = state


_MEANINGS = {
    "frozen": f"frozen, all images of the last {BEGINS_AFTER_S:.0f} s are identical",
    "dark": f"dark, its images have shown nothing for {BEGINS_AFTER_S:.0f} s",
    "covered": f"covered or out of focus, its images have shown nothing for {BEGINS_AFTER_S:.0f} s",
    "lost": f"lost, it has delivered no image for {_LOST_AFTER_S:.0f} s",
}


def _sample(frame: Frame) -> ImageU8:
    """Return a copy of about 128 x 96 points of the luma, or of the green of a colour image."""
    image = frame.luma if frame.luma is not None else frame.image_bgr[:, :, 1]
    height, width = image.shape
    columns, rows = _SAMPLE_WH
    return np.ascontiguousarray(image[:: max(1, height // rows), :: max(1, width // columns)])


def _state_in(sample: ImageU8, previous: ImageU8 | None) -> CameraState:
    """Return the state that a sample shows in comparison with the sample before."""
    grid = cv2.resize(sample, _GRID_WH, interpolation=cv2.INTER_AREA).astype(np.int16)
    differences = np.concatenate([np.abs(np.diff(grid, axis=axis)).ravel() for axis in (0, 1)])  # of neighbours
    if np.sort(differences)[-_PERCENTILE_RANK] < _MIN_DETAIL:
        return "dark" if grid.mean() < _MAX_DARK_LEVEL else "covered"
    return "frozen" if previous is not None and np.array_equal(sample, previous) else "ok"
