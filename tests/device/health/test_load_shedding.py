"""Load shedding with scripted health samples, without waiting."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest

from edgekit.boards import Board, Conditions, Throttling, read_board
from edgekit.device.detection import WholeFrame
from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.health.load_shedding import (
    FRAME_RATE_LEVELS,
    LEVELS,
    LoadLimits,
    LoadShedder,
    LoadState,
    PacedSource,
    default_max_temperature_c,
    next_state,
)
from edgekit.device.health.runtime_monitor import RuntimeMonitor
from edgekit.device.health.sampler import Health
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.detection_schedule import Every
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.device.tracking.localizer import WholeImage

NOTHING = Conditions(*[None] * 9)
LIMITS = LoadLimits(max_temperature_c=75, hysteresis_c=5, rise_s=10, fall_s=30)

UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3


def sample(now_s: float, temperature_c: float | None = None, flags: int | None = None) -> Health:
    throttling = None if flags is None else Throttling(flags)
    conditions = dataclasses.replace(NOTHING, temperature_c=temperature_c, throttling=throttling)
    return Health(now_s, 0.0, conditions, None, None)


def levels(script: list[tuple[int, float | None, int | None]], limits: LoadLimits = LIMITS) -> list[int]:
    """Return the level of each second; the rows of `script` are (seconds, temperature, flags)."""
    state, now_s, result = LoadState(), 1000.0, []
    for seconds, temperature_c, flags in script:
        for _ in range(seconds):
            state = next_state(state, sample(now_s, temperature_c, flags), limits)
            result.append(state.level)
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
    assert max(levels([(60, None, flags)], LoadLimits(None))) == highest


def test_what_happened_before_the_run_does_not_count():
    assert max(levels([(60, 50.0, 0xF0000)])) == 0


def test_without_a_ceiling_heat_alone_changes_nothing():
    assert max(levels([(60, 99.0, 0)], LoadLimits(None))) == 0
    assert max(levels([(60, None, None)])) == 0


def test_a_warning_after_throttling_keeps_the_first_step_only():
    assert levels([(30, None, THROTTLED), (200, None, SOFT_LIMIT)])[-1] == 1


@pytest.mark.parametrize("levels", [LEVELS, FRAME_RATE_LEVELS])
def test_each_level_does_no_more_than_the_one_before(levels):
    assert len(levels) == len(LEVELS)
    for before, after in itertools.pairwise(levels):
        assert after.number == before.number + 1
        assert after.detect_every_at_least >= before.detect_every_at_least
        assert after.detector_scale <= before.detector_scale
        assert after.frame_share <= before.frame_share
        assert after.text != before.text


def test_every_change_of_the_load_level_is_reported_and_passed_to_the_followers(notices):
    shedder, followed = LoadShedder(LIMITS, notices.append), []
    shedder.subscribe(followed.append)
    for now_s, temperature_c, flags in [(0, 60.0, 0), (1, 76.5, 0), (2, 77.0, 0), (20, 70.0, THROTTLED)]:
        shedder.observe(sample(now_s, temperature_c, flags))
    assert notices == [
        "76.5 °C (limit 75 °C), not throttled: load level 1 of 3, detection in 1 of 10 frames",
        "70.0 °C (limit 75 °C), throttled: load level 2 of 3, detection in 1 of 20 frames, on a smaller image",
    ]
    assert followed == [LEVELS[1], LEVELS[2]]
    assert (shedder.level, shedder.max_level) == (LEVELS[2], 2)


def test_only_a_raspberry_pi_has_a_ceiling_of_its_own():
    board = read_board()
    assert default_max_temperature_c(dataclasses.replace(board, model="Raspberry Pi 4 Model B Rev 1.4")) == 75
    assert default_max_temperature_c(dataclasses.replace(board, model="Intel(R) Core(TM) i5")) is None
    assert default_max_temperature_c(Board(*[None] * 4, "aarch64", 64, None, None, None, "3", None)) is None


@pytest.fixture
def raspberry_pi(monkeypatch):
    board = dataclasses.replace(read_board(), model="Raspberry Pi 4 Model B Rev 1.4")
    monkeypatch.setattr("edgekit.device.health.runtime_monitor.read_board", lambda: board)


class Counting(WholeFrame):
    name = "counting"

    def __init__(self) -> None:
        self.count = 0

    def detect(self, image_bgr):
        self.count += 1
        return super().detect(image_bgr)


@pytest.mark.usefixtures("raspberry_pi")
def test_a_hot_board_lowers_the_rate_of_detection(tmp_path, notices):
    detector = Counting()
    face_tracker = FaceTracker(detector, Every(1))
    monitor = RuntimeMonitor(tmp_path, lambda: face_tracker, notices.append, live=True)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)

    def searched(sequences: range) -> int:
        before = detector.count
        for sequence in sequences:
            face_tracker.find(Frame(sequence, sequence / 25, 0.0, noise), StageTimer())
        return detector.count - before

    assert searched(range(0, 20)) == 20
    monitor._shedder.observe(sample(0, 80.0))
    assert searched(range(20, 40)) <= 2
    assert monitor.as_document()["max_load_level"] == 1
    assert notices == ["80.0 °C (limit 75 °C): load level 1 of 3, detection in 1 of 10 frames"]


@pytest.mark.usefixtures("raspberry_pi")
def test_a_hot_board_gets_fewer_frames_of_whole_images(tmp_path, notices):
    monitor = RuntimeMonitor(tmp_path, lambda: WholeImage(None, is_sequence=True), notices.append, live=True)
    monitor._shedder.observe(sample(0, 80.0))
    assert monitor._shedder.level.frame_share == 0.75
    assert notices == ["80.0 °C (limit 75 °C): load level 1 of 3, three quarters of the frame rate"]


@pytest.mark.usefixtures("raspberry_pi")
def test_the_results_of_a_file_do_not_depend_on_the_temperature(tmp_path, notices):
    face_tracker = FaceTracker(Counting(), Every(1))
    monitor = RuntimeMonitor(tmp_path, lambda: face_tracker, notices.append, live=False)
    monitor._shedder.observe(sample(0, 80.0))
    assert face_tracker._detect_every_at_least == 1
    assert monitor._shedder.level.frame_share == 0.75


class Three(RecordedSource):
    name, fps, frame_count = "three", 25.0, 3

    def __iter__(self):
        for sequence in range(3):
            if self._stopped:
                return
            yield Frame(sequence, 0.0, 0.0, np.zeros((2, 2, 3), np.uint8))


def test_at_half_the_load_a_source_pauses_as_long_as_a_frame_took(monkeypatch):
    now_s, slept = 0.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(time, "sleep", slept.append)
    level = LEVELS[0]
    with PacedSource(Three(), lambda: level) as source:
        for frame, took_s in zip(source, [1.0, 0.04, 9.0], strict=True):
            level = LEVELS[3] if frame.sequence else LEVELS[0]
            now_s += took_s
        assert slept == [pytest.approx(0.04), 0.5]
        assert (source.name, source.fps, source.frame_count, source.live) == ("three", 25.0, 3, False)
        assert (source.dropped, source.skipped) == (0, 0)
        source.stop()
        assert list(source) == []
