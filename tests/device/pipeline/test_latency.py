"""Latency summaries and the frame-rate meter."""

from __future__ import annotations

import pytest

from edgekit.device.pipeline.summary import LatencyMeter, summarize
from edgekit.device.stages import StageTimer
from tests.device.conftest import Clock


def test_percentiles_are_interpolated_and_the_order_of_samples_does_not_matter():
    summary = summarize([100.0, *range(1, 100)])
    assert summary.count == 100
    assert summary.mean_ms == pytest.approx(50.5)
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == pytest.approx((50.5, 90.1, 99.01))
    assert summary.max_ms == 100


def test_stage_times_split_the_time_between_stages():
    clock = Clock()
    timer = StageTimer(clock)
    clock.now_s = 0.010
    timer.mark("capture")
    clock.now_s = 0.035
    timer.mark("detect")
    assert timer.ms == pytest.approx({"capture": 10, "detect": 25})


def test_pauses_are_not_part_of_the_frame_rate():
    clock = Clock()
    meter = LatencyMeter(clock=clock)
    meter.start()
    for paused_s in (0.0, 0.0, 100.0):
        clock.now_s += 1
        meter.add({}, paused_s)
        clock.now_s += 100 if meter.frames == 2 else 0
    assert (meter.elapsed_s, meter.fps) == (3.0, 1.0)
    # A pause that no frame follows does not count either.
    clock.now_s += 50
    assert meter.elapsed_s == 3.0
