"""Detects a live source that delivers no usable images: frozen, dark, covered, or none at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

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


class _TimedState(NamedTuple):
    """A state of the source, and the time since which it is so; the time of "ok" is not used."""

    state: CameraState
    since_s: float


class CameraWatch(Sink):
    """Sink that samples the images of a live source; `check` returns the state and reports each change.

    *frozen*: new images arrive, and all have the same pixels; the noise of a sensor changes some in every image.
    *dark* and *covered*: no structure is visible, in a dark or bright image. *lost*: no image arrives.

    Attributes:
        faults: How often each state other than "ok" has begun.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Watch a source from now on; `notify` receives one line at the begin and end of each fault."""
        self._notify = notify
        # Set by the thread of the sinks.
        self._seen_s = time.monotonic()  # time of the latest frame
        self._sampled_s = float("-inf")
        self._sample: ImageU8 | None = None
        self._shown = _TimedState("ok", 0.0)  # what the latest samples show
        # Set by the thread that calls `check`: what is reported.
        self._state: CameraState = "ok"
        self._fault_began_s = 0.0
        self.faults: dict[str, int] = {}

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Note that a frame has arrived, and sample it if the latest sample is old enough."""
        del result
        self._seen_s = time.monotonic()  # and not the time of capture: a slow run is no lost camera
        if frame.monotonic_s - self._sampled_s < _SAMPLE_PERIOD_S:
            return
        self._sampled_s = frame.monotonic_s
        sample = _sample(frame)
        state = _state_in(sample, self._sample)
        self._sample = sample
        if state != self._shown.state:
            self._shown = _TimedState(state, frame.monotonic_s)

    def idle(self) -> None:
        """Accept that no image arrives, during a pause of the run."""
        self._seen_s = time.monotonic()

    def check(self) -> CameraState:
        """Return the state now, and report it if it has changed; called about once per second, by one thread.

        "ok" counts at once, a fault only when the samples have shown it for a while.
        """
        shown = self._shown  # read once, because another thread may replace it
        if time.monotonic() - self._seen_s >= _LOST_AFTER_S:
            now = _TimedState("lost", self._seen_s)
        elif shown.state == "ok" or self._sampled_s - shown.since_s >= BEGINS_AFTER_S:
            now = shown
        # The samples show a fault that has not lasted long enough to be reported.
        elif self._state == "lost":  # and frames arrive again
            now = _TimedState("ok", 0.0)
        else:
            return self._state
        if now.state != self._state:
            self._change(now.state, now.since_s)
        return now.state

    def _change(self, state: CameraState, since_s: float) -> None:
        """Set the state that has begun at `since_s`, count a fault and report the change."""
        if state == "ok":
            lasted_s = time.monotonic() - self._fault_began_s
            self._notify(f"the camera was {self._state} for {lasted_s:.0f} s, and delivers usable images again")
        else:
            # The start of an earlier fault is kept: the message at the end has the time since the first fault.
            if self._state == "ok":
                self._fault_began_s = since_s
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
    """Return the state that a sample of the luma shows; "frozen" if it equals the sample before, `previous`.

    Without detail, the sample is "dark" or "covered". Detail is a large difference between neighbouring cells of a
    coarse grid of means.
    """
    grid = cv2.resize(sample, _GRID_WH, interpolation=cv2.INTER_AREA).astype(np.int16)
    vertical, horizontal = np.diff(grid, axis=0), np.diff(grid, axis=1)
    # In ascending order, so that the index -n is the n-th largest.
    differences = np.sort(np.abs(np.concatenate([vertical.ravel(), horizontal.ravel()])))
    # Before "frozen", because images without light can be equal although the camera works.
    if differences[-_PERCENTILE_RANK] < _MIN_DETAIL:
        return "dark" if grid.mean() < _MAX_DARK_LEVEL else "covered"
    return "frozen" if previous is not None and np.array_equal(sample, previous) else "ok"
