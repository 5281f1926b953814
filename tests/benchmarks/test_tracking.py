"""The tracking gate: tracking passes on the made clip, holding the last box fails, and each fault is detected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def tracking(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("tracking")


@pytest.mark.slow
def test_following_passes_the_gate_on_known_boxes_and_holding_fails(tracking: ModuleType, shared: Path) -> None:
    model = shared / "data/yunet/face_detection_yunet_2026may.onnx"
    detector = tracking.YuNet(model, tracking.DETECTOR_SIZE_PX, 0.7, intra_op_threads=1)
    figures = tracking.measure(tracking.made_clip(detector, shared / "data/media"), detector, "auto", rounds=1)
    # The benchmark measures the cost, on an idle machine.
    assert replace(figures, cost=0.0).faults == []
    assert figures.hold_agreement < 0.9 < 0.95 <= figures.agreement
    assert figures.correct > 0.95
    assert figures.detected_frames < figures.frames / 4


def test_agreement_counts_missing_boxes_and_strays(tracking: ModuleType) -> None:
    box, other = np.array([[0, 0, 10, 10]], np.float32), np.array([[50, 50, 60, 60]], np.float32)
    nothing = np.zeros((0, 4), np.float32)
    assert tracking.agreement([box, box], [box, box]) == (1.0, 0.0)
    assert tracking.agreement([box, box], [box, other]) == (0.5, 0.5)
    assert tracking.agreement([box, nothing], [np.concatenate((box, other)), other]) == (1.0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"agreement": 0.94}, "agreement"),
        ({"strays": 0.06}, "strays"),
        ({"switches": 5}, "5 switches > 4 faces"),
        ({"cost": 0.76}, "cost"),
        ({"hold_agreement": 0.95}, "the clip is too easy"),
    ],
)
def test_the_gate_refuses_each_fault(tracking: ModuleType, changes: dict[str, float], fault: str) -> None:
    good = tracking.Figures(
        clip="made", frames=240, faces=4, detected_frames=30, agreement=0.99, strays=0.0, hold_agreement=0.7,
        switches=1, cost=0.5, costs=(0.5,),
    )  # fmt: skip
    assert good.faults == []
    (found,) = replace(good, **changes).faults
    assert fault in found
