"""Recordings at their own pace."""

from __future__ import annotations

import threading
import time

import pytest

from edgekit.device.sources import open_source
from edgekit.errors import InputError


def test_a_video_plays_no_faster_than_it_was_taken(write_clip, told):
    with open_source(str(write_clip(levels=range(0, 100, 10))), told.append, realtime=True) as source:
        assert (source.live, source.fps, source.frame_count) == (True, 20.0, 10)
        frames = list(source)
    first = frames[0]
    for frame in frames:
        assert frame.monotonic_s - first.monotonic_s == pytest.approx((frame.sequence - first.sequence) / 20, abs=1e-6)
    assert len(frames) + source.dropped == 10


def test_a_slow_taker_gets_newer_frames_and_the_others_are_counted(write_clip, told):
    with open_source(str(write_clip(levels=range(0, 250, 10))), told.append, realtime=True) as source:
        sequences = []
        for frame in source:
            sequences.append(frame.sequence)
            time.sleep(0.12)
    assert sequences == sorted(set(sequences))
    assert len(sequences) < 25
    assert len(sequences) + source.dropped == 25
    assert sequences[-1] == 24


def test_stop_ends_the_waiting(write_clip, told, monkeypatch):
    with open_source(str(write_clip()), told.append, realtime=True) as source:
        monkeypatch.setattr(source, "_position_s", lambda frame: 60.0 * frame.sequence)
        sequences = []
        for frame in source:
            sequences.append(frame.sequence)
            threading.Timer(0.15, source.stop).start()
        assert sequences == [0]


def test_pictures_have_no_pace(tmp_path, told, picture):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(InputError, match="has no frame rate"):
        open_source(str(tmp_path), told.append, realtime=True)


def test_a_live_stream_has_a_pace_of_its_own(play, told):
    with open_source(play([("pictures", 1000, (64, 48))]).url, told.append, realtime=True) as source:
        assert source.live
    assert "is a live source: realtime has no effect" in told[0]
