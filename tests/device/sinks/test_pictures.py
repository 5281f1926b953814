"""Annotated images: the output for image files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.detections import FrameResult
from edgekit.device.imaging import read_image
from edgekit.device.sinks.pictures import PictureSink, is_for_pictures
from edgekit.device.sources import open_source
from edgekit.errors import InputError, StorageError
from tests.device.conftest import Feed


def save(path: Path, size_wh: tuple[int, int], level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size_wh[::-1], 3), level, np.uint8))
    return path


def result(*labels: str) -> FrameResult:
    return Feed().next(*labels)[1]


def annotate(uri: str | Path, target: Path, *labels: str, blur_faces: bool = False) -> PictureSink:
    with open_source(str(uri), print) as source, PictureSink(target, source, blur_faces) as sink:
        for frame in source:
            sink.write(frame, result(*labels))
    return sink


def test_each_picture_of_a_folder_keeps_its_name_and_size(tmp_path):
    sizes = {"a.jpg": (200, 160), "b.png": (301, 177), "c.webp": (120, 400)}
    for name, size_wh in sizes.items():
        save(tmp_path / "in" / name, size_wh)
    sink = annotate(tmp_path / "in", tmp_path / "new" / "out", "happy")
    out = {path.name: read_image(path) for path in (tmp_path / "new" / "out").iterdir()}
    assert {name: image.shape[1::-1] for name, image in out.items()} == sizes
    assert all(cv2.absdiff(image, np.full_like(image, 100)).max() > 90 for image in out.values()), "a box is drawn"
    assert read_image(tmp_path / "in" / "b.png").max() == 100
    assert sink.accounts[0].as_document() == {"produced": 3, "written": 3, "dropped": {}, "waiting": 0}


def test_a_single_picture_gets_the_name_that_is_given(tmp_path):
    annotate(save(tmp_path / "a.jpg", (200, 160)), tmp_path / "out.png", "happy")
    assert read_image(tmp_path / "out.png").shape == (160, 200, 3)


def test_a_format_that_opencv_only_reads_becomes_png(tmp_path):
    cv2.imwrite(str(tmp_path / "a.pgm"), np.full((160, 200), 100, np.uint8))
    annotate(tmp_path / "a.pgm", tmp_path / "out", "happy")
    assert read_image(tmp_path / "out" / "a.pgm.png").shape == (160, 200, 3)


def test_pictures_of_one_name_are_numbered(tmp_path):
    for folder, level in (("x", 10), ("y", 200)):
        save(tmp_path / "in" / folder / "a.png", (64, 64), level)
    annotate(tmp_path / "in" / "**" / "*.png", tmp_path / "out")
    assert [read_image(tmp_path / "out" / name).max() for name in ("a.png", "a-2.png")] == [10, 200]


def test_a_number_that_another_picture_has_in_its_name_is_left_out(tmp_path):
    for name, level in (("x/a-2.png", 10), ("x/a.png", 100), ("y/a.png", 200)):
        save(tmp_path / "in" / name, (64, 64), level)
    annotate(tmp_path / "in" / "**" / "*.png", tmp_path / "out")
    assert {path.name: read_image(path).max() for path in (tmp_path / "out").iterdir()} == {
        "a-2.png": 10,
        "a.png": 100,
        "a-3.png": 200,
    }


def test_no_picture_of_the_source_is_overwritten(tmp_path):
    path = save(tmp_path / "in" / "a.png", (64, 64))
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for target in (tmp_path / "in", tmp_path / "link", path):
        with pytest.raises(InputError, match="would be overwritten"):
            annotate(f"{tmp_path}/in/*.png", target, "happy")
    assert path.read_bytes() == before


def test_a_picture_of_another_folder_of_the_source_is_not_overwritten(tmp_path):
    save(tmp_path / "in-1" / "a.png", (64, 64))
    later = save(tmp_path / "in-2" / "a.png", (32, 32))
    before = later.read_bytes()
    with pytest.raises(InputError, match="would be overwritten"):
        annotate(f"{tmp_path}/in-*/a.png", tmp_path / "in-2", "happy", "happy")
    assert later.read_bytes() == before


def test_a_picture_whose_name_is_not_utf8_can_be_written_again(tmp_path):
    original = save(tmp_path / "in" / "a.png", (64, 64))
    original.rename(os.fsdecode(os.fsencode(original.parent) + b"/\xff.png"))
    for _ in range(2):
        annotate(tmp_path / "in", tmp_path / "out", "happy")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["\\xff.png"]


def test_blurred_faces_are_those_of_the_same_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    for name in ("a.png", "b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), noise)
    with open_source(str(tmp_path / "in"), print) as source, PictureSink(tmp_path / "out", source, True) as sink:
        for frame in source:
            sink.write(frame, result(*["happy"][frame.sequence :]))
    hidden, shown = (read_image(tmp_path / "out" / name)[90:130, 40:70].astype(int) for name in ("a.png", "b.png"))
    assert np.abs(np.diff(hidden, axis=1)).mean() < 20
    np.testing.assert_array_equal(shown, noise[90:130, 40:70])


def test_a_target_that_does_not_fit_the_source_is_refused(tmp_path, write_clip):
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, (64, 64))
    with open_source(str(tmp_path / "in"), print) as source, pytest.raises(InputError, match="name a folder"):
        PictureSink(tmp_path / "out.jpg", source)
    with open_source(str(write_clip()), print) as source, pytest.raises(InputError, match=r"is a video: name a file"):
        PictureSink(tmp_path / "out.jpg", source)


def test_a_full_disk_ends_the_run_and_the_picture_is_counted(small_disk, tmp_path, fill):
    save(tmp_path / "a.png", (64, 64))
    fill(small_disk)
    with open_source(str(tmp_path / "a.png"), print) as source:
        sink = PictureSink(small_disk / "out.png", source)
        with pytest.raises(StorageError, match="No space left"):
            sink.write(next(iter(source)), result())
    assert sink.accounts[0].as_document()["dropped"] == {"disk full": 1}
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_the_name_decides_between_pictures_and_video(tmp_path):
    (tmp_path / "folder.v2").mkdir()
    names = {"a.jpg": True, "A.PNG": True, "out": True, "folder.v2": True, "a.mp4": False, "a.avi": False}
    assert {name: is_for_pictures(tmp_path / name) for name in names} == names
