"""Recordings that play in real time."""

from __future__ import annotations

import pytest

from edgekit.device.sources import open_source
from edgekit.errors import InputError


def test_a_video_plays_no_faster_than_it_was_taken(write_clip, notices):
    with open_source(str(write_clip(levels=range(0, 100, 10))), notices.append, realtime=True) as source:
        assert (source.live, source.fps, source.frame_count) == (True, 20.0, 10)
        frames = list(source)
    first = frames[0]
    for frame in frames:
        assert frame.monotonic_s - first.monotonic_s == pytest.approx((frame.sequence - first.sequence) / 20, abs=1e-6)
    assert len(frames) + source.dropped == 10


def test_the_demo_in_real_time_goes_on_like_a_camera(notices):
    with open_source("demo", notices.append, realtime=True) as source:
        assert (source.live, source.frame_count) == (True, None)


def test_pictures_have_no_pace(tmp_path, notices, picture):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(InputError, match="frame rate"):
        open_source(str(tmp_path), notices.append, realtime=True)


def test_a_repeated_video_goes_on_until_it_is_stopped(write_clip, notices):
    frames = []
    with open_source(str(write_clip(levels=range(0, 100, 20))), notices.append, repeat=True) as source:
        for frame in source:
            frames.append(frame)
            if len(frames) == 12:
                source.stop()
    assert [frame.sequence for frame in frames] == list(range(12))
    assert [frame.position_s for frame in frames] == pytest.approx([index / 20 for index in range(12)])
    levels = [int(frame.image_bgr.mean()) for frame in frames]
    assert levels[:5] == levels[5:10]
    assert (source.frame_count, notices) == (None, [])
