"""Images, folders, patterns, videos and the demo as sources."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgekit.device.sources import open_source
from edgekit.errors import InputError
from tests.images import write_image


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def frames_of(uri: str | Path, notices: list[str]) -> list:
    with open_source(str(uri), notices.append) as source:
        return list(source)


def test_a_picture_is_one_frame_with_its_pixels(tmp_path, picture, notices):
    path = write_image(tmp_path / "face.png", picture)
    with open_source(str(path), notices.append) as source:
        assert (source.frame_count, source.fps, source.live, source.dropped) == (1, None, False, 0)
        (frame,) = source
    np.testing.assert_array_equal(frame.image_bgr, picture)
    assert (frame.sequence, notices) == (0, [])


def test_images_of_a_format_that_is_not_read_are_named(tmp_path, picture, notices):
    write_image(tmp_path / "1.png", picture)
    (tmp_path / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert len(frames_of(tmp_path, notices)) == 1
    (line,) = notices
    assert f"'{tmp_path}/2.heic'" in line
    with pytest.raises(InputError):
        frames_of(tmp_path / "2.heic", notices)


@pytest.mark.parametrize("pattern", ["", "/*.png", "/f*"])
def test_a_folder_or_pattern_gives_its_pictures_in_natural_order(tmp_path, notices, pattern):
    for number in (10, 9, 1):
        write_image(tmp_path / f"frame[{number}].png", np.full((4, 4, 3), number, np.uint8))
    (tmp_path / "f_notes.txt").write_text("not a picture")
    (tmp_path / "._frame_1.png").write_bytes(b"what a Mac keeps beside a file")
    frames = frames_of(f"{tmp_path}{pattern}", notices)
    assert [int(frame.image_bgr[0, 0, 0]) for frame in frames] == [1, 9, 10]
    assert [frame.sequence for frame in frames] == [0, 1, 2]
    assert len(frames_of(tmp_path / "frame[1].png", notices)) == 1, "the file, not the pattern"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.6, 0.98])
def test_a_truncated_picture_is_refused_by_name(tmp_path, picture, notices, suffix, share):
    path = cut(write_image(tmp_path / f"half{suffix}", picture), share)
    with pytest.raises(InputError, match=f"half{suffix}"):
        frames_of(path, notices)


def test_a_damaged_image_in_a_folder_is_skipped_reported_and_counted(tmp_path, picture, notices):
    write_image(tmp_path / "a.png", picture)
    cut(write_image(tmp_path / "b.png", picture), 0.5)
    write_image(tmp_path / "c.png", picture)
    with open_source(str(tmp_path), notices.append) as source:
        assert [frame.sequence for frame in source] == [0, 2]
        assert source.skipped == 1
    (message,) = notices
    assert "b.png" in message


def test_nothing_to_read_is_refused(tmp_path, notices):
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "live.mjpeg")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_text("no picture")
    for uri in (
        *(str(tmp_path / name) for name in ("", "*.jpg", "missing.mp4", "live.mjpeg", "broken")),
        *("gopher://host/x", "http://me:secret@127.0.0.1:9/\udce9"),
    ):
        with pytest.raises(InputError) as raised:
            frames_of(uri, notices)
        assert "secret" not in str(raised.value)


def test_a_video_gives_every_frame_in_order_with_growing_times(write_clip, notices):
    levels = list(range(0, 250, 10))
    with open_source(str(write_clip(levels=levels)), notices.append) as source:
        assert (source.frame_count, source.fps, source.live) == (25, 20.0, False)
        frames = list(source)
    assert [frame.sequence for frame in frames] == list(range(25))
    np.testing.assert_allclose([frame.image_bgr.mean() for frame in frames], levels, atol=5)
    times = [frame.monotonic_s for frame in frames]
    assert times == sorted(times)
    assert notices == []


@pytest.mark.parametrize("content", [b"", b"just text\n" * 400, None])
def test_a_video_without_a_frame_is_refused_when_opened(write_clip, notices, content):
    path = write_clip("broken.mp4")
    if content is None:
        cut(path, 0.5)  # removes the index, which is at the end
    else:
        path.write_bytes(content)
    with pytest.raises(InputError):
        open_source(str(path), notices.append)


def test_the_demo_is_six_seconds_and_always_the_same(notices):
    with open_source("demo", notices.append) as source:
        assert (source.frame_count, source.fps, source.live) == (150, 25.0, False)
        first = list(source)
    assert len(first) == 150
    assert first[0].image_bgr.shape == (480, 640, 3)
    with open_source("demo", notices.append) as source:
        for a, b in zip(first[:10], source, strict=False):
            np.testing.assert_array_equal(a.image_bgr, b.image_bgr)


def test_a_folder_of_folders_is_refused_with_the_pattern_to_give(tmp_path, notices):
    (tmp_path / "happy").mkdir()
    with pytest.raises(InputError, match=r"FOLDER/\*/\*\.jpg"):
        open_source(str(tmp_path), notices.append)
