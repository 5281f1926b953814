"""Videos: `--save` of a video and `--record`: playable MP4 files, restarts, and rotation."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image
from edgekit.device.sink import Sink
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.record import H264Recorder, RecordOptions
from edgekit.device.sinks.save import SaveOptions
from edgekit.device.sources import open_source
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import InputError
from tests.device.conftest import Feed
from tests.device.videos import levels, times_ms
from tests.packets import FPS, KEY_EVERY, SIZE_WH, packets
from tests.runs import Source, counts, run_of
from tests.waiting import wait_until

pytest.importorskip("av", reason="no PyAV here: pip install av")


def recorder_for(path: Path, notices: list[str], **rules: Any) -> tuple[H264Recorder, RunContext]:
    run = run_of(notices.append, **rules)
    recorder = RecordOptions(record=path).recorder(run)
    return recorder, run


def record(recorder: H264Recorder, coded: list[EncodedPacket]) -> None:
    recorder.start(SIZE_WH)
    for packet in coded:
        recorder.put(packet)
    recorder.stop()


def video(path: Path, run: RunContext) -> Sink:
    return SaveOptions(save=path).open(run)


def frames(count: int, size_wh: tuple[int, int] = (64, 48), fps: float = 20.0) -> list[tuple[Frame, FrameResult]]:
    result = Feed().next()[1]
    return [
        (
            Frame(number, number / fps, 1.7e9, np.full((*size_wh[::-1], 3), 20 + 5 * number % 200, np.uint8)),
            result,
        )
        for number in range(count)
    ]


def test_every_packet_of_a_camera_is_in_the_video_in_order(tmp_path, notices):
    recorder, run = recorder_for(tmp_path / "door.mp4", notices)
    with recorder:
        record(recorder, packets(18))
    found = levels(tmp_path / "door.mp4")
    assert (len(found), found) == (18, sorted(found))
    assert cv2.VideoCapture(str(tmp_path / "door.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(FPS, rel=0.02)
    recorder.put(packets(1)[0])  # after the end, it is ignored
    recorder.stop()
    assert counts(run, "record") == {"produced": 18, "written": 18, "dropped": {}, "waiting": 0}
    assert notices == []


def test_pieces_begin_at_key_frames_and_none_is_lost(tmp_path, notices):
    recorder, _ = recorder_for(tmp_path / "door.mp4", notices, rotate_files="10KB,keep=100")
    with recorder:
        record(recorder, packets(8 * KEY_EVERY, noise=40))
    pieces = [len(levels(path)) for path in tmp_path.iterdir()]
    assert len(pieces) > 1
    assert (sum(pieces), {length % KEY_EVERY for length in pieces}) == (8 * KEY_EVERY, {0})


def test_a_pause_and_a_restart_begin_files_of_their_own(tmp_path, notices):
    for _ in range(2):
        recorder, _ = recorder_for(tmp_path / "door.mp4", notices)
        with recorder:
            record(recorder, packets(8))
            record(recorder, packets(3))
    assert sorted(len(levels(path)) for path in tmp_path.iterdir()) == [3, 3, 8, 8]
    assert len(levels(tmp_path / "door.mp4")) == 3


@pytest.mark.parametrize("name", ["door.avi", "door", "folder.mp4"])
def test_other_names_are_refused(tmp_path, notices, name):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError):
        recorder_for(tmp_path / name, notices)


def test_every_frame_of_a_recording_is_in_the_video_at_its_rate(tmp_path, notices):
    run = run_of(notices.append, Source(live=False, fps=20.0))
    with video(tmp_path / "v.mp4", run) as sink:
        for frame, result in frames(30, (65, 47)):
            sink.write(frame, result)
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (66, 48)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    assert len(levels(tmp_path / "v.mp4")) == 30
    assert counts(run, "save") == {"produced": 30, "written": 30, "dropped": {}, "waiting": 0}


def test_an_existing_video_is_renamed_with_its_time(tmp_path, notices):
    for _ in range(3):
        with video(tmp_path / "v.mp4", run_of(notices.append, Source(live=False))) as sink:
            for frame, result in frames(5):
                sink.write(frame, result)
    assert len({*tmp_path.glob("v.*Z*.mp4")}) == 2
    assert [len(levels(path)) for path in tmp_path.iterdir()] == [5, 5, 5]


def test_a_live_video_keeps_the_time_of_each_frame(tmp_path, notices):
    run = run_of(notices.append, Source(live=True, fps=None))
    with video(tmp_path / "v.mp4", run) as sink:
        for frame, result in frames(10, fps=0.5):
            sink.write(frame, result)
            wait_until(lambda: counts(run, "save")["waiting"] <= 2)
    assert np.diff(times_ms(tmp_path / "v.mp4")) == pytest.approx([2000] * 9, abs=1)


def test_blurred_faces_are_not_in_the_video_or_picture(tmp_path, notices):
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    with video(tmp_path / "v.mp4", run_of(notices.append, Source(live=False), blur_faces=True)) as sink:
        sink.write(Frame(0, 0.0, 1.7e9, image), Feed().next("happy")[1])
    cv2.imwrite(str(tmp_path / "a.png"), image)
    save_pictures(tmp_path / "a.png", tmp_path / "out" / "a.png", notices, blur_faces=True)
    for shown in (cv2.VideoCapture(str(tmp_path / "v.mp4")).read()[1], read_image(tmp_path / "out" / "a.png")):
        assert shown[70:140, 30:80].std() < image[70:140, 30:80].std() / 3


_KILLED = """
import sys, time
from pathlib import Path
from edgekit.device.sinks.save import SaveOptions
from tests.device.sinks.test_recordings import frames
from tests.runs import Source, run_of
sink = SaveOptions(save=Path(sys.argv[1])).open(run_of(print, Source(live=False, fps=10.0)))
for frame, result in frames(90, fps=10):
    sink.write(frame, result)
print("written", flush=True)
time.sleep(600)
"""


def test_a_killed_run_leaves_a_video_with_every_complete_fragment(tmp_path):
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "v.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as run:
        assert run.stdout.readline() == "written\n"
        run.send_signal(signal.SIGKILL)
    assert len(levels(tmp_path / "v.mp4")) == 80, "a fragment lasts one second"


@pytest.mark.parametrize("names", [["a.jpg"], ["a.jpg", "b.png", "c.webp"]])
def test_pictures_of_a_folder_are_saved_with_their_names_and_sizes(tmp_path, notices, names):
    for place, name in enumerate(names):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full((160 + place, 200, 3), 100, np.uint8))
    save_pictures(tmp_path / "in", tmp_path / "new" / "out", notices)
    out = {path.name: read_image(path) for path in (tmp_path / "new" / "out").iterdir()}
    assert {name: image.shape[0] for name, image in out.items()} == {
        name: 160 + place for place, name in enumerate(names)
    }
    assert all(cv2.absdiff(image, np.full_like(image, 100)).max() > 90 for image in out.values()), "a box is drawn"


def save_pictures(source: Path | str, target: Path, notices: list[str], **rules: Any) -> RunContext:
    with open_source(str(source), notices.append) as opened:
        run = run_of(notices.append, opened, **rules)
        with video(target, run) as sink:
            for frame in opened:
                sink.write(frame, Feed().next("happy")[1])
    return run


def test_a_picture_of_the_source_is_never_overwritten(tmp_path, notices):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((160, 200, 3), 100, np.uint8))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError):
        save_pictures(tmp_path, tmp_path, notices)
    assert (tmp_path / "a.png").read_bytes() == before
