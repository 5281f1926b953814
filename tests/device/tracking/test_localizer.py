"""The region that a model of whole images classifies."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.frame import Frame
from edgekit.device.region import Region, parse_region
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import WholeImage
from edgekit.errors import InputError

FRAME = Frame(0, 0.0, 0.0, np.zeros((240, 320, 3), np.uint8))


@pytest.mark.parametrize(
    ("region", "xyxy"),
    [
        (None, [0, 0, 320, 240]),
        (Region(20, 30, 40, 50), [20, 30, 60, 80]),
        (Region(0.4, 0.4, 0.2, 0.2), [128, 96, 192, 144]),
        (Region(0, 0, 1, 1), [0, 0, 320, 240]),
    ],
)
def test_the_only_box_is_the_frame_or_its_region(region, xyxy) -> None:
    found = WholeImage(region, is_sequence=True).find(FRAME, timer := StageTimer())
    assert (found.xyxy.tolist(), found.scores.tolist(), found.track_ids.tolist()) == ([xyxy], [1.0], [1])
    assert timer.ms == {}


def test_images_without_an_order_have_no_track() -> None:
    assert WholeImage(None, is_sequence=False).find(FRAME, StageTimer()).track_ids is None


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,0,5", "0.5,0.5,0.6,0.2", "300,0,40,40"])
def test_a_region_that_is_none_or_outside_the_frame_is_refused(text) -> None:
    with pytest.raises(InputError):
        WholeImage(parse_region(text), is_sequence=True).find(FRAME, StageTimer())
