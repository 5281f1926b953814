"""Load shedding with scripted health samples, without waiting."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from edgekit.boards import Board, Conditions, Throttling, read_board
from edgekit.device.detection import WholeFrame
from edgekit.device.frame import Frame
from edgekit.device.health import (
    LEVELS,
    LoadShedder,
    RuntimeMonitor,
)
from edgekit.device.health.sampler import Health
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker
from edgekit.device.tracking.detection_schedule import Every
from tests.waiting import wait_until

NOTHING = Conditions(*[None] * 9)
PI = dataclasses.replace(read_board(), model="Raspberry Pi 4 Model B Rev 1.4")
PC = dataclasses.replace(PI, model="Intel(R) Core(TM) i5")

UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3


def sample(now_s: float, temperature_c: float | None = None, flags: int | None = None) -> Health:
    throttling = None if flags is None else Throttling(flags)
    conditions = dataclasses.replace(NOTHING, temperature_c=temperature_c, throttling=throttling)
    return Health(now_s, 0.0, conditions, None, None)


def levels(script: list[tuple[int, float | None, int | None]], board: Board = PI) -> list[int]:
    """Return the level of each second; the rows of `script` are (seconds, temperature, flags)."""
    shedder, now_s, result = LoadShedder(board, lambda _: None), 1000.0, []
    for seconds, temperature_c, flags in script:
        for _ in range(seconds):
            shedder.observe(sample(now_s, temperature_c, flags))
            result.append(shedder.level.number)
            now_s += 1
    return result


def changes(values: list[int]) -> list[tuple[int, int]]:
    """Return (second, level) of every change."""
    return [(second, level) for second, level in enumerate(values) if level != ([0, *values])[second]]


def test_heat_lowers_the_load_step_by_step_and_cold_brings_it_back():
    script = [(5, 60.0, 0), (35, 76.0, 0), (120, 65.0, 0)]
    assert changes(levels(script)) == [(5, 1), (15, 2), (25, 3), (70, 2), (100, 1), (130, 0)]


def test_around_the_ceiling_the_load_does_not_go_to_and_fro():
    swinging = [(1, 75.5 if second % 2 else 74.5, 0) for second in range(300)]
    assert [level for _, level in changes(levels(swinging))] == [1, 2, 3]
    below = [(15, 76.0, 0), (300, 71.0, 0)]
    assert levels(below)[-1] == 2, "not yet so far below the ceiling"


def test_a_short_calm_brings_nothing_back():
    script = [(1, 76.0, 0)] + [(29, 60.0, 0), (1, 72.0, 0)] * 4
    assert levels(script)[-1] == 1


@pytest.mark.parametrize(("flags", "highest"), [(CAPPED, 3), (THROTTLED, 3), (SOFT_LIMIT, 1), (UNDER_VOLTAGE, 1)])
def test_what_the_firmware_does_counts_without_a_temperature(flags, highest):
    assert max(levels([(60, None, flags)])) == highest
    assert max(levels([(60, None, flags)], PC)) == highest


def test_what_happened_before_the_run_does_not_count():
    assert max(levels([(60, 50.0, 0xF0000)])) == 0


def test_without_a_ceiling_heat_alone_changes_nothing():
    assert max(levels([(60, 99.0, 0)], PC)) == 0
    assert max(levels([(60, None, None)])) == 0


def test_a_warning_after_throttling_keeps_the_first_step_only():
    assert levels([(30, None, THROTTLED), (200, None, SOFT_LIMIT)])[-1] == 1


def test_every_change_of_the_load_level_is_reported_and_passed_to_the_followers(notices):
    followed: list[object] = []
    shedder = LoadShedder(PI, notices.append, apply=followed.append)
    for now_s, temperature_c, flags in [(0, 60.0, 0), (1, 76.5, 0), (2, 77.0, 0), (20, 70.0, THROTTLED)]:
        shedder.observe(sample(now_s, temperature_c, flags))
    assert len(notices) == 2
    assert followed == [LEVELS[1], LEVELS[2]]
    assert (shedder.level, shedder.max_level) == (LEVELS[2], 2)


@pytest.fixture
def hot_pi(monkeypatch):
    """A board whose samples are 80 °C."""
    monkeypatch.setattr("edgekit.device.health.read_board", lambda: PI)
    monkeypatch.setattr("edgekit.device.health.sampler.read_health", lambda *_: sample(time.monotonic(), 80.0))


class Counting(WholeFrame):
    name = "counting"

    def __init__(self) -> None:
        self.count = 0

    def detect(self, image_bgr):
        self.count += 1
        return super().detect(image_bgr)


@pytest.mark.usefixtures("hot_pi")
@pytest.mark.parametrize("live", [True, False])
def test_a_hot_board_lowers_the_rate_of_detection_but_changes_no_result_of_a_file(tmp_path, notices, live):
    face_tracker = FaceTracker(detector := Counting(), Every(1))
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    with RuntimeMonitor(tmp_path, lambda: face_tracker, notices.append, live=live) as monitor:
        wait_until(lambda: monitor.as_document()["max_load_level"] == 1)
        for sequence in range(20):
            face_tracker.find(Frame(sequence, sequence / 25, 0.0, noise), StageTimer())
    assert (detector.count <= 3) if live else (detector.count == 20)
    assert len(notices) == 1
