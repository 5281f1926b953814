"""Pauses: their duration, their end, and the release of a source."""

from __future__ import annotations

import threading

import pytest

from edgekit.device.controls import Controls
from tests.waiting import wait_until


@pytest.fixture
def controls() -> Controls:
    return Controls()


def waiting(controls: Controls, source: object = None) -> threading.Thread:
    thread = threading.Thread(target=controls.wait, args=[source], daemon=True)
    thread.start()
    return thread


def test_a_pause_lasts_until_resume_and_is_counted_while_it_lasts(controls):
    controls.pause()
    assert controls.paused_s == 0
    thread = waiting(controls)
    wait_until(lambda: controls.paused_s > 0.05)
    assert thread.is_alive()
    assert controls.resumed_for_s == 0
    controls.resume()
    thread.join(60)
    first_s = controls.paused_s
    assert first_s > 0.05
    assert controls.paused_s == first_s
    assert 0 < controls.resumed_for_s < 60
    controls.pause()
    thread = waiting(controls)
    wait_until(lambda: controls.paused_s > first_s)
    controls.resume()
    thread.join(60)


def test_a_source_that_can_be_released_is_and_others_are_left_alone(controls):
    steps = []

    class Camera:
        def release(self):
            steps.append("release")
            controls.while_paused(lambda: (steps.append("idle"), controls.resume()))

        def reacquire(self):
            steps.append("reacquire")

    class Video:
        def release(self):  # OpenCV's name for closing a video
            steps.append("closed")

    controls.pause()
    controls.wait(Camera())
    assert steps == ["release", "idle", "reacquire"]
    controls.pause()
    controls.wait(Video())
    assert steps == ["release", "idle", "reacquire", "idle"]
