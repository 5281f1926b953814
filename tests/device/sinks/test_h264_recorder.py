"""Recording of a camera's H.264 packets: playable MP4 files, rotation, and disk errors."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.device.sinks.h264_recorder import H264Recorder
from edgekit.device.sinks.mp4 import H264File, PacketFile
from edgekit.device.sinks.rotation import Rotation
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError, StorageError
from tests.packets import FPS, KEY_EVERY, SIZE_WH, packets
from tests.waiting import PATIENCE_S, wait_until

pytest.importorskip("av", reason="no PyAV here: pip install av")


def levels(path: Path) -> list[int]:
    """Return the mean brightness of each frame of a video."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (read := capture.read())[0]:
        assert read[1].shape[1::-1] == SIZE_WH
        found.append(int(read[1].mean()))
    return found


def record(recorder: H264Recorder, coded: list[EncodedPacket]) -> None:
    recorder.start(SIZE_WH)
    for packet in coded:
        recorder.put(packet)
    recorder.stop()


@pytest.fixture
def new_recorder(tmp_path: Path, notices: list[str]) -> Callable[..., H264Recorder]:
    def make(folder: Path = tmp_path, rotation: Rotation | None = None, **options: Any) -> H264Recorder:
        return H264Recorder(folder / "door.mp4", rotation or Rotation(), notices.append, **options)

    return make


def test_every_picture_is_in_the_video_in_order(tmp_path, new_recorder, notices):
    record(new_recorder(), packets(18))
    found = levels(tmp_path / "door.mp4")
    assert len(found) == 18
    assert found == sorted(found)
    assert cv2.VideoCapture(str(tmp_path / "door.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(FPS, rel=0.02)
    assert notices == []


def test_what_comes_before_the_first_key_frame_is_left_out(tmp_path, new_recorder):
    record(new_recorder(), packets(12)[2:])
    assert len(levels(tmp_path / "door.mp4")) == 12 - KEY_EVERY


def test_a_power_cut_leaves_the_fragments_that_were_written(tmp_path, new_recorder):
    recording = new_recorder()
    recording.start(SIZE_WH)
    for packet in packets(4 * KEY_EVERY):
        recording.put(packet)
    path = tmp_path / "door.mp4"
    wait_until(lambda: path.exists() and len(levels(path)) >= 2 * KEY_EVERY)
    shutil.copy(path, tmp_path / "cut.mp4")
    recording.stop()
    assert 2 * KEY_EVERY <= len(levels(tmp_path / "cut.mp4")) < len(levels(path)) == 4 * KEY_EVERY


def test_pieces_begin_at_key_frames_and_none_is_lost(tmp_path, new_recorder):
    recording = new_recorder(rotation=Rotation(size_bytes=1, keep=10))
    record(recording, packets(3 * KEY_EVERY))
    record(recording, packets(KEY_EVERY))
    assert sum(len(levels(path)) for path in tmp_path.iterdir()) == 4 * KEY_EVERY
    assert len(list(tmp_path.iterdir())) > 1
    record(new_recorder(rotation=Rotation(size_bytes=1_000_000, keep=10)), packets(KEY_EVERY))
    assert sum(len(levels(path)) for path in tmp_path.iterdir()) == 5 * KEY_EVERY


def test_a_camera_that_comes_back_and_the_next_run_record_another_file(tmp_path, new_recorder):
    recording = new_recorder()
    record(recording, packets(8))
    record(recording, packets(3))
    record(new_recorder(), packets(4))
    assert sorted(len(levels(path)) for path in tmp_path.iterdir()) == [3, 4, 8]
    assert len(levels(tmp_path / "door.mp4")) == 4


def test_a_disk_that_fails_is_reported_once_and_the_recording_continues(tmp_path, new_recorder, notices):
    (tmp_path / "place").write_text("a file where the folder is to be")
    recording = new_recorder(tmp_path / "place", retry_s=0.0)
    coded = packets(2 * KEY_EVERY)
    recording.start(SIZE_WH)
    for packet in coded:
        recording.put(packet)
    # The folder is created when the queue is empty, so that no queued packet starts a file.
    wait_until(lambda: notices and recording._queue.empty())
    assert "recording to" in notices[0]
    assert "has stopped, the run continues" in notices[0]
    (tmp_path / "place").unlink()
    (tmp_path / "place").mkdir()
    for packet in coded:
        recording.put(packet)
    recording.stop()
    assert len(notices) == 2, notices
    assert "has resumed" in notices[1]
    assert levels(tmp_path / "place" / "door.mp4")


def test_a_full_disk_ends_the_piece_and_what_was_written_can_be_played(small_disk, new_recorder, notices, fill):
    recording = new_recorder(small_disk)
    recording.start(SIZE_WH)
    coded = packets(4 * KEY_EVERY, noise=15)
    for packet in coded[: 2 * KEY_EVERY + 1]:
        recording.put(packet)
    wait_until(lambda: (small_disk / "door.mp4").exists() and len(levels(small_disk / "door.mp4")) >= KEY_EVERY)
    fill(small_disk)
    for packet in coded[2 * KEY_EVERY + 1 :]:
        recording.put(packet)
    wait_until(lambda: notices)
    recording.stop()
    assert len(levels(small_disk / "door.mp4")) >= KEY_EVERY
    assert "No space left" in notices[0]


def test_a_file_that_failed_is_freed_without_the_garbage_collector(small_disk, fill):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    fill(small_disk, but_bytes=40_000)
    gc.collect()
    gc.disable()
    try:
        file, written = H264File(small_disk / "v.mp4", (64, 64), 30.0), 0
        with suppress(StorageError):
            for written in range(300):
                file.write(noise, written / 30)
        assert written < 299
        with suppress(StorageError):
            file.close()
        muxer = weakref.ref(file._file)
        del file
        assert muxer() is None
    finally:
        gc.enable()


@pytest.fixture
def stall(monkeypatch) -> threading.Event:
    """Return an event; no packet is written before the event is set."""
    over, put = threading.Event(), PacketFile.put

    def wait_and_put(file: PacketFile, packet: EncodedPacket) -> None:
        over.wait(PATIENCE_S)
        put(file, packet)

    monkeypatch.setattr(PacketFile, "put", wait_and_put)
    monkeypatch.setattr("edgekit.device.sinks.h264_recorder._CLOSE_TIMEOUT_S", 0.01)
    return over


def test_a_disk_that_stalls_until_the_end_delays_nothing_and_its_frames_are_counted(new_recorder, stall, monkeypatch):
    monkeypatch.setattr("edgekit.device.sinks.h264_recorder._MAX_QUEUED_PACKETS", 2)
    coded = packets(2 * KEY_EVERY)
    with new_recorder() as recording:
        recording.start(SIZE_WH)
        for packet in coded:
            recording.put(packet)
    counts = recording.account.as_document()
    # A camera that is closed after the recorder changes no count.
    recording.put(coded[0])
    recording.stop()
    stall.set()
    assert counts == {"produced": 10, "written": 0, "dropped": {"disk too slow": 10}, "waiting": 0}
    assert recording.account.as_document() == counts


def test_a_camera_that_comes_back_while_the_disk_stalls_begins_a_file_of_its_own(
    tmp_path, new_recorder, stall, notices
):
    recording, coded = new_recorder(), packets(2 * KEY_EVERY)
    record(recording, coded)
    record(recording, coded)
    assert recording.account.waiting == 2 * len(coded)
    stall.set()
    wait_until(lambda: not recording.account.waiting)
    assert [len(levels(path)) for path in tmp_path.iterdir()] == [len(coded)] * 2
    assert recording.account.describe() == "record 20 written"
    assert notices == []


def test_a_disk_that_is_low_pauses_the_recording_until_the_next_key_frame(tmp_path, new_recorder):
    low = iter([False] * KEY_EVERY + [True] * 2 + [False] * KEY_EVERY * 2)
    recording = new_recorder(is_disk_low=lambda: next(low))
    record(recording, packets(3 * KEY_EVERY))
    assert [len(levels(path)) for path in tmp_path.iterdir()] == [KEY_EVERY, KEY_EVERY]
    assert recording.account.as_document()["dropped"] == {"disk reserve": 2, "disk not writable": KEY_EVERY - 2}


def test_frames_that_are_not_in_the_file_are_counted(tmp_path, new_recorder):
    (tmp_path / "place").write_text("a file where the folder is to be")
    with new_recorder(tmp_path / "place") as recording:
        record(recording, packets(7))
    assert recording.account.as_document() == {
        "produced": 7,
        "written": 0,
        "dropped": {"disk not writable": 7},
        "waiting": 0,
    }


def test_the_frame_that_ends_a_file_which_cannot_be_completed_is_counted(new_recorder, monkeypatch):
    close = PacketFile.close

    def close_and_fail(file: PacketFile) -> None:
        close(file)
        raise StorageError("cannot write")

    monkeypatch.setattr(PacketFile, "close", close_and_fail)
    recording = new_recorder(rotation=Rotation(size_bytes=1))
    record(recording, packets(2 * KEY_EVERY + 1))
    assert recording.account.describe() == "record 10 of 11 written, 1 dropped (1 disk not writable)"


def test_a_fault_of_the_recording_ends_the_run(new_recorder, monkeypatch):
    monkeypatch.setattr(PacketFile, "put", lambda *_: 1 / 0)
    recording = new_recorder()
    record(recording, packets(1))
    with pytest.raises(ZeroDivisionError):
        recording.write(None, None)


@pytest.mark.parametrize("name", ["door.avi", "."])
def test_other_names_are_refused(tmp_path, notices, name):
    with pytest.raises(InputError, match=r"name a file that ends in \.mp4"):
        H264Recorder(tmp_path / name, Rotation(), notices.append)
