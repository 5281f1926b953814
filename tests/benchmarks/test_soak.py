"""The soak test: its verdict reports each fault, and a short real run passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.health.sampler import ProcessUse
from edgekit.errors import EXIT_OK

SOAK = Path(__file__).parents[2] / "benchmarks/device/soak.py"


def steady(count: int = 100) -> list[tuple[float, ProcessUse]]:
    return [(float(second), ProcessUse(100.0, 110.0, 9, 7)) for second in range(count)]


@pytest.fixture
def soak(load):
    return load("soak")


def ordered(soak, count: int = 500):
    order = soak.Order()
    for sequence in range(count):
        order.take(f'{{"sequence": {sequence}, "monotonic_s": 1.5, "faces": [{{"xyxy": []}}]}}')
    return order


def test_a_steady_run_in_order_passes(soak):
    verdict = soak.judge(steady(), ordered(soak), EXIT_OK, 60, 500)
    assert (verdict.failed, verdict.frames, verdict.faces) == ((), 500, 500)
    assert (verdict.growth_mb, verdict.open_files, verdict.threads) == (0, (7, 7), (9, 9))


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (lambda second: ProcessUse(100 + second / 8, 115, 9, 7), "memory grew"),
        (lambda _: ProcessUse(100, 155, 9, 7), "peak memory"),
        (lambda second: ProcessUse(100, 110, 9, 7 + second // 20), "open files"),
        (lambda second: ProcessUse(100, 110, 9 + second // 20, 7), "threads"),
    ],
)
def test_memory_that_keeps_growing_is_detected(soak, change, failure):
    samples = [(float(second), change(second)) for second in range(100)]
    (failed,) = soak.judge(samples, ordered(soak), EXIT_OK, 60, 0).failed
    assert failure in failed


@pytest.mark.parametrize("sequences", [[0, 2], [1, 0], [0, 0]])
def test_frames_out_of_order_are_found(soak, sequences):
    order = soak.Order()
    for sequence in sequences:
        order.take(f'{{"sequence": {sequence}, "monotonic_s": 1.5}}')
    (failed,) = soak.judge(steady(), order, EXIT_OK, 60, 0).failed
    assert "out of order" in failed


@pytest.mark.slow
def test_a_short_soak_of_the_real_command(tmp_path, tiny_model):
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for level in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    report = tmp_path / "soak.json"
    times = ["--minutes", "0.15", "--warm-up", "3"]
    run = ["--", "--model", tiny_model, "--detector", "none"]
    done = subprocess.run(
        [sys.executable, SOAK, "--clip", clip, *times, "-o", report, *run], capture_output=True, text=True
    )
    assert done.returncode == EXIT_OK, done.stderr
    document = json.loads(report.read_text())
    assert document["verdict"]["failed"] == []
    assert document["verdict"]["frames"] > 10, "more than the clip has: it was played again"
    assert len(document["samples"]) > 4
