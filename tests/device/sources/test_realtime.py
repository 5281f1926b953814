"""Recordings that play in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.sources import open_source
from edgekit.device.sources.files import RealtimeSource
from edgekit.errors import InputError
from tests.waiting import wait_until


def test_a_video_plays_no_faster_than_it_was_taken(write_clip, notices):
    with open_source(str(write_clip(levels=range(0, 100, 10))), notices.append, realtime=True) as source:
        assert (source.live, source.fps, source.frame_count) == (True, 20.0, 10)
        frames = list(source)
    first = frames[0]
    for frame in frames:
        assert frame.monotonic_s - first.monotonic_s == pytest.approx((frame.sequence - first.sequence) / 20, abs=1e-6)
    assert len(frames) + source.dropped == 10


def test_a_slow_taker_gets_newer_frames_and_the_others_are_counted(write_clip, notices):
    with open_source(str(write_clip(levels=range(0, 250, 10))), notices.append, realtime=True) as source:
        sequences = []
        for frame in source:
            sequences.append(frame.sequence)
            time.sleep(0.12)
    assert sequences == sorted(set(sequences))
    assert len(sequences) < 25
    assert len(sequences) + source.dropped == 25
    assert sequences[-1] == 24


class Gated(RecordedSource):
    """A recording whose second frame is available after the first frame was taken."""

    name, fps, frame_count = "gated", 1000.0, 5

    def __init__(self) -> None:
        self.first_taken = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for sequence in range(5):
            assert sequence == 0 or self.first_taken.wait(10)
            yield Frame(sequence, 0.0, 0.0, np.zeros((48, 64, 3), np.uint8))


def test_a_recording_plays_on_while_a_frame_is_processed():
    recording = Gated()
    with RealtimeSource(recording) as source:
        frames = iter(source)
        assert next(frames).sequence == 0
        recording.first_taken.set()
        wait_until(lambda: source.dropped == 3, patience_s=10)
        assert [frame.sequence for frame in frames] == [4]
        assert source.dropped == 3


def test_stop_ends_the_waiting(write_clip, notices, monkeypatch):
    with open_source(str(write_clip()), notices.append, realtime=True) as source:
        monkeypatch.setattr(source, "_position_s", lambda frame: 60.0 * frame.sequence)
        sequences = []
        for frame in source:
            sequences.append(frame.sequence)
            threading.Timer(0.15, source.stop).start()
        assert sequences == [0]


def test_pictures_have_no_pace(tmp_path, notices, picture):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(InputError, match="has no frame rate"):
        open_source(str(tmp_path), notices.append, realtime=True)


def test_a_live_stream_has_a_pace_of_its_own(play, notices):
    with open_source(play([("pictures", 1000, (64, 48))]).url, notices.append, realtime=True) as source:
        assert source.live
