"""Recordings of a live source: rotation, batches of lines, and full or failing disks."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.annotate import draw_faces
from edgekit.device.blur import FaceBlur
from edgekit.device.sinks.csv import CsvSink
from edgekit.device.sinks.jsonl import JsonLinesSink
from edgekit.device.sinks.line_file import LineFile
from edgekit.device.sinks.lines import BatchedLines, open_lines
from edgekit.device.sinks.mp4 import H264File
from edgekit.device.sinks.recorder import RecorderThread, open_video
from edgekit.device.sinks.rotation import Rotation, free_bytes, shift
from edgekit.device.sinks.video import RotatingVideo, VideoOptions
from edgekit.device.sources import open_source
from edgekit.errors import InputError, StorageError
from tests.device.conftest import Feed
from tests.waiting import wait_until

PATIENCE_S = 30
NOT_WRITABLE = "disk not writable"


def frames_of(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def live(path: Path) -> VideoOptions:
    return VideoOptions(path, 25.0, True, lambda frame: frame.monotonic_s)


def recorded(path: Path) -> VideoOptions:
    return VideoOptions(path, 25.0, False, lambda frame: frame.sequence / 25)


def recorder(options: VideoOptions, notices: list[str]) -> RecorderThread:
    return RecorderThread(RotatingVideo(options, Rotation(), None), f"recording to '{options.target}'", notices.append)


def dropped(sink: RecorderThread) -> int:
    return sink.accounts[0].lost


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def frequent_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the interval between batches to 0.05 s."""
    monkeypatch.setattr("edgekit.device.sinks.lines._FLUSH_S", 0.05)


def older_names(folder: Path) -> list[str]:
    """The names of the files that were renamed with their times, in the order of the names."""
    pattern = re.compile(r"o\.\d{8}T\d{6}Z(-\d+)?\.mp4")
    return [name for name in names(folder) if pattern.fullmatch(name)]


def test_older_files_move_up_by_one_and_the_oldest_goes(tmp_path):
    keep, left = 3, "abc"
    for name, content in (("r.jsonl", "a"), ("r.1.jsonl", "b"), ("r.2.jsonl", "c"), ("r.3.jsonl", "d")):
        (tmp_path / name).write_text(content)
    (tmp_path / "r.old.jsonl").write_text("not ours")
    shift(tmp_path / "r.jsonl", keep)
    assert not (tmp_path / "r.jsonl").exists()
    assert "".join((tmp_path / f"r.{number}.jsonl").read_text() for number in range(1, len(left) + 1)) == left
    assert len(names(tmp_path)) == len(left) + 1
    shift(tmp_path / "r.jsonl", keep)
    assert len(names(tmp_path)) == len(left) + 1, "nothing to move, nothing moves"


def test_a_file_that_only_looks_like_an_older_one_stays(tmp_path):
    theirs = tmp_path / "door.2024.mp4"
    theirs.write_text("last year")
    for content in "abc":
        (tmp_path / "door.mp4").write_text(content)
        shift(tmp_path / "door.mp4", 2)
    assert names(tmp_path) == ["door.1.mp4", "door.2.mp4", theirs.name]
    assert theirs.read_text() == "last year"


def test_lines_rotate_by_size_and_none_is_split_or_lost(tmp_path, feed):
    path = tmp_path / "r.jsonl"
    with JsonLinesSink(LineFile(str(path), Rotation(size_bytes=3000, keep=100))) as sink:
        for _ in range(60):
            sink.write(*feed.next("happy"))
    files = [path, *(tmp_path / f"r.{number}.jsonl" for number in range(1, len(names(tmp_path))))]
    sequences = [json.loads(line)["sequence"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert sequences == list(range(1, 61))
    assert len(files) > 5
    assert all(3000 <= file.stat().st_size < 4000 for file in files[1:])


def test_lines_rotate_by_age(tmp_path, monkeypatch):
    path, now_s = tmp_path / "r.txt", 100.0
    monkeypatch.setattr("edgekit.device.sinks.line_file.time.monotonic", lambda: now_s)
    lines = LineFile(str(path), Rotation(age_s=60.0, keep=2))
    for step in range(5):
        now_s = 100.0 + 30 * step
        lines.write(f"{step}\n")
    lines.close()
    assert [path.read_text(), (tmp_path / "r.1.txt").read_text(), (tmp_path / "r.2.txt").read_text()] == [
        "4\n",
        "2\n3\n",
        "0\n1\n",
    ]


@pytest.mark.parametrize("sink", [JsonLinesSink, lambda lines: CsvSink(lines, ("calm", "happy", "sad"))])
def test_lines_rotate_by_age_also_across_restarts(tmp_path, feed, sink):
    path, rotation = tmp_path / "results", Rotation(age_s=86400.0)
    frame, result = feed.next("happy")
    for wall_s in (time.time() - 86401, time.time(), time.time() + 99):
        with sink(LineFile(str(path), rotation)) as lines:
            for _ in range(2):
                lines.write(frame, replace(result, wall_s=wall_s))
    assert names(tmp_path) == ["results", "results.1"]
    assert (
        len(path.read_text().splitlines())
        == len((tmp_path / "results.1").read_text().splitlines())
        == 3 + ("monotonic_s," in path.read_text())
    )


@pytest.mark.parametrize("first", ["", "[" * 100_000, "\0" * 99, '{"wall_s": NaN}', '{"wall_s": "x"}', "wall_s\nnan"])
def test_a_file_without_a_time_is_continued(tmp_path, first):
    path = tmp_path / "r.jsonl"
    path.write_text(first + "\n")
    lines = LineFile(str(path), Rotation(age_s=60.0))
    lines.write("1\n")
    lines.write("2\n")
    lines.close()
    assert path.read_text() == first + "\n1\n2\n"


def test_every_file_of_a_rotation_has_the_header(tmp_path, feed):
    path = tmp_path / "r.csv"
    with CsvSink(LineFile(str(path), Rotation(size_bytes=500, keep=100)), ("calm", "happy", "sad")) as sink:
        for _ in range(20):
            sink.write(*feed.next("happy"))
    assert len(names(tmp_path)) > 3
    for file in tmp_path.iterdir():
        with file.open(newline="") as stream:
            assert all(row["label"] == "happy" and row["p_sad"] for row in csv.DictReader(stream))


def test_a_run_that_starts_again_continues_after_the_last_complete_line(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("head\n1\n2\nhalf a li")
    lines = LineFile(str(path), Rotation(size_bytes=1000))
    lines.header = "head\n"
    lines.write("3\n")
    lines.close()
    assert path.read_text() == "head\n1\n2\n3\n"


def test_a_table_with_other_columns_is_put_aside(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("a,b\n1,2\n")
    lines = LineFile(str(path), Rotation(size_bytes=1000))
    lines.header = "a,c\n"
    lines.write("3,4\n")
    lines.close()
    assert path.read_text() == "a,c\n3,4\n"
    assert (tmp_path / "r.1.csv").read_text() == "a,b\n1,2\n"


def test_a_live_sources_lines_are_written_in_batches_and_whole_at_the_end(tmp_path, notices, feed, monkeypatch):
    path, writes = tmp_path / "r.jsonl", []
    append = LineFile.append
    monkeypatch.setattr(LineFile, "append", lambda file, text: (append(file, text), writes.append(text)))
    with JsonLinesSink(open_lines(str(path), Rotation(), True, notices.append, "jsonl")) as sink:
        for _ in range(100):
            sink.write(*feed.next("happy"))
        wait_until(lambda: "".join(writes).count("\n") == 100)
        # One write, or a few on a machine that stops for seconds.
        assert len(writes) < 20, "the card gets them together"
        sink.write(*feed.next("happy"))
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == list(range(1, 102))
    assert notices == []


@pytest.mark.usefixtures("frequent_writes")
def test_a_disk_that_fills_up_stops_the_lines_not_the_run_and_they_go_on(small_disk, notices, fill, monkeypatch):
    path = small_disk / "r.txt"
    file = LineFile(str(path))
    lines = BatchedLines(file, "recording", notices.append, retry_s=0.05)
    lines.write("0\n")
    wait_until(path.exists)
    ballast = fill(small_disk)
    attempts = []
    monkeypatch.setattr(file, "append", lambda text: (attempts.append(text), LineFile.append(file, text)))
    for number in range(1, 2001):
        lines.write(f"{number}\n")
    wait_until(lambda: notices != [] and len(attempts) >= 3)
    assert notices == [f"cannot write '{path}': No space left on device: recording has stopped, the run continues"]
    ballast.unlink()
    wait_until(lambda: len(notices) == 2)
    assert notices[1] == "recording has resumed"
    lines.write("2001\n")
    lines.close()
    assert [int(line) for line in path.read_text().splitlines()] == list(range(2002))


@pytest.mark.usefixtures("frequent_writes")
def test_while_a_disk_is_full_the_oldest_lines_are_dropped_and_counted(tmp_path, notices, monkeypatch):
    monkeypatch.setattr("edgekit.device.sinks.lines._MAX_BUFFERED_CHARS", 1000)
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "r.txt"
    lines = BatchedLines(LineFile(str(path)), "recording", notices.append, retry_s=0.02)
    for number in range(1000):
        lines.write(f"{number:09}\n")
    # The lines of a running attempt are dropped after it has failed.
    wait_until(lambda: notices != [] and lines.account.lost == 900)
    (tmp_path / "file").unlink()
    wait_until(lambda: len(notices) == 2)
    lines.close()
    assert notices[1] == "recording has resumed, 900 records were lost so far"
    assert [int(line) for line in path.read_text().splitlines()] == list(range(900, 1000))


@pytest.mark.usefixtures("frequent_writes")
def test_frames_without_faces_need_no_memory_while_a_disk_fails(tmp_path, notices, feed):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "r.csv"
    lines = BatchedLines(LineFile(str(path)), "recording", notices.append, retry_s=0.02)
    sink = CsvSink(lines, ("happy",))
    for _ in range(1000):
        sink.write(*feed.next())
    wait_until(lambda: notices != [])
    assert len(lines._buffer) <= 1
    (tmp_path / "file").unlink()
    sink.write(*feed.next())
    wait_until(lambda: len(notices) == 2)
    sink.__exit__()
    assert path.read_text() == lines.header
    assert lines.account.as_document() == {"produced": 0, "written": 0, "dropped": {}, "waiting": 0}


@pytest.mark.usefixtures("frequent_writes")
def test_a_read_only_disk_stops_the_lines_not_the_run(small_disk, notices):
    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode},size=1m", str(small_disk)], check=True)

    path = small_disk / "r.txt"
    lines = BatchedLines(LineFile(str(path)), "recording", notices.append, retry_s=0.05)
    remount("ro")
    try:
        lines.write("1\n")
        wait_until(lambda: notices != [])
        assert "Read-only file system: recording has stopped, the run continues" in notices[0]
    finally:
        remount("rw")
    wait_until(lambda: "recording has resumed" in notices)
    lines.close()
    assert path.read_text() == "1\n"


def test_a_disk_that_stalls_does_not_delay_the_run_and_loses_the_oldest_lines(tmp_path, notices):
    # A write to a full pipe blocks like a write to a disk that hangs.
    path = tmp_path / "r.txt"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines = BatchedLines(LineFile(str(path)), "recording", notices.append)
    text, number = "x" * 1000, 0
    end_s = time.monotonic() + PATIENCE_S
    while lines.account.lost < 100:
        assert time.monotonic() < end_s
        lines.write(f"{number} {text}\n")
        number += 1
    # The reader of a pipe without a writer gets the end of the file at once.
    wait_until(lambda: lines._lines._handle is not None)
    os.set_blocking(reader, True)
    received: list[str] = []

    def read() -> None:
        with open(reader) as stream:
            received.extend(stream)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: not lines._buffer)
    lines.write(f"last {text}\n")
    lines.close()
    thread.join(PATIENCE_S)
    assert all(line.endswith(f"{text}\n") for line in received), "whole lines"
    numbers = [int(line.partition(" ")[0]) for line in received[:-1]]
    assert received[-1].startswith("last ")
    assert numbers == sorted(set(numbers))
    assert (len(numbers), numbers[-1]) == (number - lines.account.lost, number - 1)
    assert notices == []


def test_an_exception_of_the_writer_ends_the_run(tmp_path, notices):
    lines = BatchedLines(LineFile(str(tmp_path / "r.txt")), "recording", notices.append)

    def run() -> None:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            lines.write("no such character: \ud800\n" * 10_000)
            time.sleep(0.01)

    with pytest.raises(UnicodeEncodeError):
        run()


def test_a_recorded_sources_lines_still_end_the_run_on_a_full_disk(notices):
    lines = open_lines("/dev/full", Rotation(), None, notices.append, "jsonl")
    with pytest.raises(StorageError):
        lines.write("1\n")


def test_each_line_of_a_recorded_source_is_written_at_once(tmp_path, notices):
    lines = open_lines(str(tmp_path / "r"), Rotation(), False, notices.append, "jsonl")
    for number in range(3):
        lines.write(f"{number}\n")
        assert (tmp_path / "r").read_text().splitlines()[-1] == str(number)
    lines.close()


def test_a_rotating_video_has_every_frame_in_one_of_its_files(tmp_path, feed):
    path = tmp_path / "o.mp4"
    video = RotatingVideo(recorded(path), Rotation(size_bytes=5_000, keep=100), blur=None)
    rng = np.random.default_rng(0)
    with video:
        for _ in range(105):
            frame, result = feed.next("happy")
            frame.image_bgr[:] = rng.integers(0, 256, frame.image_bgr.shape, np.uint8)
            video.write(frame, result)
    assert len(names(tmp_path)) > 3
    assert sum(frames_of(file) for file in tmp_path.iterdir()) == 105


def test_the_frame_of_a_rotation_that_fails_is_counted(tmp_path, feed, monkeypatch):
    sink = RotatingVideo(live(tmp_path / "o.mp4"), Rotation(age_s=0.0), None)
    sink.write(*feed.next())
    finish = H264File.close

    def fail(file: H264File) -> None:
        finish(file)
        raise StorageError("cannot finish the file")

    monkeypatch.setattr(H264File, "close", fail)
    with pytest.raises(StorageError):
        sink.write(*feed.next())
    assert sink.account.as_document() == {
        "produced": 2,
        "written": 1,
        "dropped": {"disk not writable": 1},
        "waiting": 0,
    }


def test_a_rotation_keeps_the_given_number_of_files_those_of_earlier_runs_included(tmp_path, feed):
    path = tmp_path / "o.mp4"
    path.write_text("an earlier run's")
    video = RotatingVideo(recorded(path), Rotation(age_s=3600.0, keep=2), blur=None)
    with video:
        video.write(*feed.next())
    assert (tmp_path / "o.1.mp4").read_text() == "an earlier run's"
    for _ in range(3):
        video.write(*feed.next())
        video.finish_file()
    assert names(tmp_path) == ["o.1.mp4", "o.2.mp4", "o.mp4"]


@pytest.mark.parametrize("name", ["", "new.mp4", "missing/new.mp4"])
def test_the_free_space_is_that_of_the_disk_of_a_folder_and_of_the_files_in_it(tmp_path, monkeypatch, name):
    (tmp_path / "disk").mkdir()
    paths = []
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda place: paths.append(Path(place)) or statvfs(place))
    assert free_bytes(tmp_path / "disk" / name) > 0
    assert paths == [tmp_path / "disk"]


@pytest.mark.parametrize("h264", [True, False], ids=["h264", "mpeg4"])
def test_a_live_video_continues_after_a_full_disk_in_a_new_file(small_disk, notices, feed, fill, h264):
    path = small_disk / "o.mp4"
    video = RotatingVideo(replace(live(path), h264=h264), Rotation(), blur=None)
    sink = RecorderThread(video, "recording", notices.append, retry_s=0.02, resume_bytes=300_000)
    with sink:
        record_until(lambda: (file := video._file) is not None and file.size_bytes() > 0, sink, feed)
        ballast = fill(small_disk, but_bytes=200_000)
        record_until(lambda: notices != [], sink, feed)
        assert ("No space left on device" if h264 else "because the disk is full") in notices[0]
        assert notices[0].endswith("recording has stopped, the run continues")
        wait_until(path.exists)
        assert frames_of(path) > 0
        frames = feed.sequence
        record_until(lambda: feed.sequence > frames + 100, sink, feed)
        assert len(notices) == 1
        ballast.unlink()
        record_until(lambda: "recording has resumed" in notices, sink, feed)
        record_until(lambda: (file := video._file) is not None and file.size_bytes() > 0, sink, feed)
    (older,) = older_names(small_disk)
    assert names(small_disk) == [older, "o.mp4"]
    assert frames_of(small_disk / older) > 0
    assert frames_of(path) > 0
    counts = sink.accounts[0].as_document()
    assert counts["written"] + sum(counts["dropped"].values()) == counts["produced"] == feed.sequence


def test_an_encoder_that_is_too_slow_delays_no_frame(tmp_path, notices, feed, monkeypatch):
    released = []
    write = RotatingVideo.record

    def slow(self, *recorded) -> None:
        wait_until(lambda: released != [])
        write(self, *recorded)

    monkeypatch.setattr(RotatingVideo, "record", slow)
    with recorder(live(tmp_path / "o.mp4"), notices) as sink:
        for _ in range(100):
            sink.write(*feed.next())
        assert dropped(sink) >= 96
        released.append(True)
    assert frames_of(tmp_path / "o.mp4") > 0
    counts = sink.accounts[0].as_document()
    assert counts["dropped"] == {"encoder or disk too slow": dropped(sink)}
    assert counts["written"] + dropped(sink) == counts["produced"] == 100


def test_a_live_video_that_no_encoder_takes_ends_the_run(tmp_path, notices, feed):
    sink = recorder(live(tmp_path / "o.mp4"), notices)
    frame, result = feed.next()
    object.__setattr__(frame, "image", np.zeros((4, 20_000, 3), np.uint8))

    def record() -> None:
        with sink:
            end_s = time.monotonic() + PATIENCE_S
            while time.monotonic() < end_s:
                sink.write(frame, result)
                time.sleep(0.01)

    with pytest.raises(InputError, match="cannot encode"):
        record()
    assert names(tmp_path) == []


def test_blurred_faces_are_not_in_the_video(tmp_path, feed):
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = {}
    for blur in (False, True):
        path = tmp_path / f"{blur}.mp4"
        with RotatingVideo(recorded(path), Rotation(), FaceBlur() if blur else None) as sink:
            frame, result = feed.next("happy", at_s=1.0)
            frame.image_bgr[:] = stripes
            sink.write(frame, result)
            # The detector misses the face in this frame, but the face stays blurred.
            missed, nothing = feed.next(at_s=1.2)
            missed.image_bgr[:] = stripes
            sink.write(missed, nothing)
        capture = cv2.VideoCapture(str(path))
        for number in range(2):
            image = capture.read()[1]
            shown[blur, number] = np.diff(image[80:140, 30:80].astype(int), axis=1).std()
        assert np.diff(image[80:140, 220:300].astype(int), axis=1).std() > 60, "what is no face is left alone"
    assert min(shown[False, 0], shown[False, 1]) > 60
    assert max(shown[True, 0], shown[True, 1]) < 20


def test_a_face_stays_hidden_over_left_out_frames_and_into_the_next_piece(tmp_path, notices, feed, monkeypatch):
    hidden = []
    ready = threading.Event()

    def record(*recorded) -> None:
        ready.wait(PATIENCE_S)
        hidden.append(len(recorded[-1]))

    monkeypatch.setattr(RotatingVideo, "record", record)
    video = RotatingVideo(live(tmp_path / "o.mp4"), Rotation(), blur=FaceBlur())
    with RecorderThread(video, "recording", notices.append) as sink:
        sink.write(*feed.next(at_s=1.0))
        # The thread holds the first frame, so that a full queue stays full.
        wait_until(sink._queue.empty)
        written = 1
        while not dropped(sink):
            sink.write(*feed.next(at_s=1.0))
            written += 1
        sink.write(*feed.next("happy", at_s=1.0))
        assert dropped(sink) == 2, "this face is in no frame that is recorded"
        ready.set()
        wait_until(lambda: len(hidden) == written - 1)
        video.finish_file()
        for at_s in (1.4, 1.6):
            sink.write(*feed.next(at_s=at_s))
            wait_until(sink._queue.empty)
    assert hidden == [0] * (written - 1) + [1, 0]


def test_a_recordings_faces_are_hidden_for_half_a_second_of_its_own_time(tmp_path, feed):
    """The file is read slowly: the next frame arrives after 0.9 s, with a presentation time 0.04 s later."""
    blur = FaceBlur(lambda frame: frame.sequence / 25)
    with RotatingVideo(recorded(tmp_path / "o.mp4"), Rotation(), blur) as video:
        hidden = [len(video.hidden_boxes(*feed.next("happy", at_s=1.0)))]
        hidden += [len(video.hidden_boxes(*feed.next(at_s=1.9 + 0.9 * number))) for number in range(13)]
    assert hidden == [1] * 13 + [0], "0.5 s are twelve pictures at 25 a second"


def test_an_encoder_that_hangs_does_not_delay_the_end(tmp_path, notices, feed, monkeypatch):
    monkeypatch.setattr("edgekit.device.sinks.recorder._CLOSE_TIMEOUT_S", 0.2)
    released = threading.Event()
    monkeypatch.setattr(RotatingVideo, "record", lambda *_: released.wait(PATIENCE_S))
    sink = recorder(live(tmp_path / "o.mp4"), notices)
    with sink:
        while not dropped(sink):
            sink.write(*feed.next())
    assert sink._thread.is_alive(), "left behind, not waited for"
    released.set()
    # If the queue was full at the end of the run, the thread has not received its end mark.
    sink._queue.put(None)
    sink._thread.join(PATIENCE_S)


def noisy(feed, number: int) -> tuple:
    """Return a frame of noise, which compresses badly, at the time `number` / 5 s."""
    frame, result = feed.next("happy", at_s=number / 5)
    frame.image_bgr[:] = np.random.default_rng(number).integers(0, 256, frame.image_bgr.shape, np.uint8)
    return frame, result


def record_until(condition: Callable[[], object], sink: RecorderThread, feed) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        sink.write(*noisy(feed, feed.sequence))
        time.sleep(0.005)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize("h264", [True, False], ids=["h264", "mpeg4"])
@pytest.mark.parametrize("happens", [remove, move])
def test_a_folder_that_disappears_stops_the_video_not_the_run(tmp_path, notices, feed, happens, h264):
    path = tmp_path / "videos" / "o.mp4"
    video = RotatingVideo(replace(live(path), h264=h264), Rotation(), None)
    sink = RecorderThread(video, "recording", notices.append, retry_s=0.02)
    with sink:
        record_until(lambda: (file := video._file) is not None and file.size_bytes() > 1000, sink, feed)
        happens(path.parent)
        record_until(lambda: "recording has resumed" in notices, sink, feed)
        record_until(lambda: (file := video._file) is not None and file.size_bytes() > 1000, sink, feed)
    stopped = f"cannot write '{path}': No such file or directory: recording has stopped, the run continues"
    assert notices[:2] == [stopped, "recording has resumed"]
    counts = sink.accounts[0].as_document()
    assert counts["produced"] == feed.sequence
    assert counts["waiting"] == 0
    assert counts["dropped"]["disk not writable"] > 0
    assert frames_of(path) > 0
    assert counts["written"] + sum(counts["dropped"].values()) == feed.sequence
    assert not h264 or counts["written"] >= frames_of(path), "the file before had frames too"


def test_an_error_of_the_medium_begins_a_new_file(tmp_path, notices, feed):
    """The kernel refuses a write beyond the limit of the file size, as on a memory stick with FAT."""
    path = tmp_path / "o.mp4"
    sink = RecorderThread(RotatingVideo(live(path), Rotation(), None), "recording", notices.append, retry_s=0.02)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with sink:
            record_until(lambda: notices.count("recording has resumed") == 2, sink, feed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert notices[0] == f"cannot write '{path}': File too large: recording has stopped, the run continues"
    counts = sink.accounts[0].as_document()
    assert counts["waiting"] == 0
    assert counts["written"] + counts["dropped"].get("disk not writable", 0) <= counts["produced"] == feed.sequence
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [*older_names(tmp_path), "o.mp4"]
    assert len(files) == 3
    assert sum(map(frames_of, files)) >= counts["written"]


@pytest.mark.parametrize("realtime", [True, False])
def test_without_pyav_opencv_encodes_and_one_line_names_the_cure(write_clip, tmp_path, notices, monkeypatch, realtime):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "o.mp4"
    with open_source(str(write_clip()), notices.append, realtime) as source:
        sink = open_video(path, source, Rotation(), None, notices.append, draw_faces)
        with sink:
            for frame in source:
                sink.write(frame, Feed().next()[1])
    assert frames_of(path) > 0
    assert len(notices) == 1
    assert "browsers and phones do not play it" in notices[0]
    assert "[video]" in notices[0]


def test_every_frame_of_an_outage_is_counted_as_not_written(tmp_path, notices, feed):
    (tmp_path / "file").touch()
    sink = RecorderThread(
        RotatingVideo(live(tmp_path / "file" / "o.mp4"), Rotation(), None), "recording", notices.append
    )
    with sink:
        for number in range(20):
            sink.write(*feed.next("happy"))
            wait_until(lambda number=number: sink.accounts[0].as_document()["dropped"] == {NOT_WRITABLE: number + 1})
    assert notices == [
        f"cannot write '{tmp_path / 'file' / 'o.mp4'}': File exists: recording has stopped, the run continues"
    ]
