"""Live sources: the newest frame, counted drops, reopened devices, and real HTTP streams."""

from __future__ import annotations

import http.server
import queue
import threading
import time

import numpy as np
import pytest

from edgekit.device.sources import open_source
from edgekit.device.sources.live import CapturedImage, LiveSource
from edgekit.errors import SourceError
from tests.waiting import PATIENCE_S, wait_until


class Camera:
    """A device that delivers the images passed to `give`; None is a lost device."""

    fps = 30.0

    def __init__(self) -> None:
        self.pictures: queue.Queue[int | None] = queue.Queue()
        self.read_count = 0
        self.closed = False

    def read(self):
        level = self.pictures.get(timeout=PATIENCE_S)
        self.read_count += 1
        return None if level is None else np.full((2, 2, 3), level, np.uint8)

    def close(self) -> None:
        self.closed = True

    def give(self, *levels: int | None) -> Camera:
        for level in levels:
            self.pictures.put(level)
        return self


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted(notices):
    camera = Camera().give(0)
    with LiveSource("camera 'test'", lambda: camera, notices.append) as source:
        frames = iter(source)
        assert next(frames).sequence == 0
        camera.give(1, 2, 3, 4)
        wait_until(lambda: source.dropped == 3)
        frame = next(frames)
        assert (frame.sequence, int(frame.image_bgr[0, 0, 0]), source.dropped) == (4, 4, 3)
        assert (source.live, source.fps, source.frame_count) == (True, 30.0, None)
        source.stop()
        camera.give(5)
    assert camera.closed


def test_a_device_without_a_picture_is_refused_and_closed(notices):
    camera = Camera().give(None)
    with pytest.raises(SourceError, match="no image"):
        LiveSource("camera 'test'", lambda: camera, notices.append)
    assert camera.closed


@pytest.mark.parametrize(("age_s", "is_kept"), [(0.05, True), (5.0, True), (11.0, False), (-60.0, False)])
def test_a_time_stamp_of_another_clock_is_replaced_by_the_time_of_reading(notices, monkeypatch, age_s, is_kept):
    started_s, camera = time.monotonic(), Camera()
    picture = CapturedImage(np.zeros((2, 2, 3), np.uint8), started_s - age_s)
    monkeypatch.setattr(camera, "read", lambda: time.sleep(0.01) or picture)
    with LiveSource("camera 'test'", lambda: camera, notices.append) as source:
        frame = next(iter(source))
    if is_kept:
        assert frame.monotonic_s == picture.taken_s
    else:
        assert started_s < frame.monotonic_s <= time.monotonic()
    assert frame.wall_s - frame.monotonic_s == pytest.approx(time.time() - time.monotonic(), abs=1)


@pytest.fixture
def served(tmp_path):
    """The address of an HTTP server that sends whole files of the test's folder, but no parts of files."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_recording_behind_an_address_is_read_whole(write_clip, notices, served):
    write_clip("clip.mp4")
    with open_source(f"{served}/clip.mp4", notices.append) as source:
        assert not source.live
        assert len(list(source)) == 25


def test_a_released_device_is_closed_and_opened_again_for_new_frames(notices):
    cameras = [Camera().give(1), Camera().give(2)]
    waiting = iter(cameras)
    with LiveSource("camera 'test'", lambda: next(waiting), notices.append) as source:
        frames = iter(source)
        next(frames)
        cameras[0].give(5, 6)
        wait_until(lambda: source.dropped == 1)
        source.release()
        cameras[0].give(7)  # an image during the release is discarded
        wait_until(lambda: cameras[0].closed)
        assert cameras[1].read_count == 0
        source.reacquire()
        frame = next(frames)
        # The waiting frame at the release has a number, the image during the release has none.
        assert (int(frame.image_bgr[0, 0, 0]), frame.sequence, source.dropped) == (2, 3, 2)
        source.stop()
        cameras[1].give(3)
    assert cameras[1].closed
    assert notices == []
