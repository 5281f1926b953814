"""The region that a model of whole images classifies."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.frame import Frame
from edgekit.device.region import Region, parse_region
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.localizer import WholeImage
from edgekit.errors import InputError

FRAME = Frame(0, 0.0, 0.0, np.zeros((240, 320, 3), np.uint8))


@pytest.mark.parametrize(
    ("region", "xyxy"),
    [
        (None, [0, 0, 320, 240]),
        (Region(20, 30, 40, 50), [20, 30, 60, 80]),
        (Region(0.4, 0.4, 0.2, 0.2), [128, 96, 192, 144]),
        (Region(0, 0, 1, 1), [0, 0, 320, 240]),
        (Region(0.5, 0.5, 1e-12, 1e-12), [160, 120, 161, 121]),
        (Region(1, 0, 1e-17, 1), [319, 0, 320, 240]),
    ],
)
def test_the_only_box_is_the_frame_or_its_region(region, xyxy) -> None:
    found = WholeImage(region, is_sequence=True).find(FRAME, timer := StageTimer())
    assert (found.xyxy.tolist(), found.scores.tolist(), found.track_ids.tolist()) == ([xyxy], [1.0], [1])
    assert timer.ms == {}


def test_images_without_an_order_have_no_track() -> None:
    assert WholeImage(None, is_sequence=False).find(FRAME, StageTimer()).track_ids is None


def test_a_region_outside_the_frame_is_refused() -> None:
    localizer = WholeImage(Region(300, 0, 40, 40), is_sequence=True)
    with pytest.raises(InputError, match="region 300,0,40,40 does not lie inside the frame of 320x240"):
        localizer.find(FRAME, StageTimer())


@pytest.mark.parametrize("text", ["0,0,2,2", "0.5,0.5,0.6,0.2", "0,0,7,100", "10,10,100,1"])
def test_fractions_beyond_the_frame_are_not_taken_for_pixels(text) -> None:
    with pytest.raises(InputError, match=f"region '{text}' is smaller than 8x8 pixels"):
        parse_region(text)
