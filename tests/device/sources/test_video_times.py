"""Videos with variable frame times and with damage: real files, written with PyAV and read without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device.frame import presentation_time_s
from edgekit.device.sinks.save import SaveOptions
from edgekit.device.sources import open_source
from tests.device import videos
from tests.device.conftest import Feed
from tests.runs import counts, run_of

av = pytest.importorskip("av", reason="no PyAV here: pip install av")

STEADY_MS = [40 * number for number in range(30)]
PAUSES_MS = [0, 40, 80, 120, 500, 1000, 1040, 1080, 3000, 3040, 5000, 5040]


def times_ms(path: Path, notices: list[str], realtime: bool = False) -> list[int]:
    with open_source(str(path), notices.append, realtime) as source:
        time_s = presentation_time_s(source)
        times = [time_s(frame) for frame in source]
    return [round((time - times[0]) * 1000) for time in times]


def damage(path: Path, *numbers: int) -> Path:
    """Overwrite the packets with these numbers and return the path."""
    with av.open(str(path)) as file:
        packets = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    data = path.read_bytes()
    for number in numbers:
        data = data.replace(packets[number], b"\xff" * len(packets[number]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["pauses.mkv", "pauses.mp4"])
def test_a_variable_frame_rate_keeps_its_times_and_gives_no_warning(write_video, notices, name):
    path = write_video(name, PAUSES_MS)
    assert times_ms(path, notices) == PAUSES_MS
    assert notices == []


def test_a_recording_of_a_variable_frame_rate_lasts_as_long(write_video, tmp_path, notices):
    path = tmp_path / "o.mp4"
    with open_source(str(write_video("pauses.mkv", PAUSES_MS)), notices.append) as source:
        run = run_of(notices.append, source)
        video = SaveOptions(save=path).open(run)
        with video:
            for frame in source:
                video.write(frame, Feed().next()[1])
    assert videos.times_ms(path) == PAUSES_MS
    assert counts(run, "save") == {"produced": 12, "written": 12, "dropped": {}, "waiting": 0}


@pytest.mark.parametrize("name", ["damaged.mkv", "damaged.mp4"])
@pytest.mark.parametrize("numbers", [[0], [8], [8, 9, 21]])
def test_frames_that_cannot_be_decoded_are_skipped_and_counted(write_video, notices, name, numbers):
    path = damage(write_video(name, STEADY_MS, noise=60), *numbers)
    with open_source(str(path), notices.append) as source:
        frames = list(source)
        assert source.skipped == len(numbers)
    left = [number for number in range(30) if number not in numbers]
    assert [frame.sequence for frame in frames] == left
    assert [round(frame.position_s * 1000) for frame in frames] == [STEADY_MS[number] for number in left]
    (line,) = notices
    assert f"{len(numbers)} frames" in line


def test_a_video_that_ends_early_gives_a_warning(write_video, notices):
    path = write_video("half.mkv", STEADY_MS, noise=60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 10 < len(times_ms(path, notices)) < 20
    assert len(notices) == 1
