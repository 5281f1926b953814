"""The arrangement of a folder of pictures: classes, splits, recordings and videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.teach.pictures import find_pictures, read_pictures
from edgekit.errors import InputError
from tests.device.teach.shapes import picture, write_pictures
from tests.device.videos import write_video


def ignore(_line: str) -> None:
    """Ignore a warning."""


def test_a_folder_per_class(tmp_path: Path) -> None:
    files = find_pictures(write_pictures(tmp_path / "things", 2), ignore)
    assert [(file.label, file.path.name, file.group) for file in files] == [
        ("disc", "0.png", None),
        ("disc", "1.png", None),
        ("square", "0.png", None),
        ("square", "1.png", None),
    ]


def test_only_train_is_taught(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", 2)
    write_pictures(tmp_path / "test", 3)
    told: list[str] = []
    assert len(find_pictures(tmp_path, told.append)) == 4
    assert told == []
    write_pictures(tmp_path / "later", 3)
    assert len(find_pictures(tmp_path, told.append)) == 4
    assert "later" in "".join(told)


def test_recordings_are_sub_folders_times_and_listed_tracks(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "things", 3)
    (folder / "disc" / "kitchen").mkdir()
    (folder / "disc" / "0.png").rename(folder / "disc" / "kitchen" / "0.png")
    (folder / "disc" / "1.png").rename(folder / "disc" / "IMG_20260131_142501.png")
    (folder / "disc" / "2.png").rename(folder / "disc" / "IMG_20260131_142530.png")
    shutil.copy(folder / "square" / "0.png", folder / "disc" / "IMG_20260131_150000.png")
    (folder / "groups.csv").write_text("path,group\nsquare/0.png,track-7\nsquare/1.png,track-7\n")
    groups = {file.path.relative_to(folder).as_posix(): file.group for file in find_pictures(folder, ignore)}
    assert groups["disc/kitchen/0.png"] == "disc/kitchen"
    assert groups["disc/IMG_20260131_142501.png"] == groups["disc/IMG_20260131_142530.png"] is not None
    assert groups["disc/IMG_20260131_150000.png"] not in (None, groups["disc/IMG_20260131_142501.png"])
    assert groups["square/0.png"] == groups["square/1.png"] == "track-7"
    assert groups["square/2.png"] is None


def test_exif_times_make_recordings(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "things", 2)
    for number, time in enumerate(("2026:01:31 14:25:01", "2026:01:31 18:25:01")):
        jpeg = cv2.imencode(".jpg", picture("disc", number))[1].tobytes()
        exif = b"Exif\0\0II*\0" + time.encode() + b"\0"
        segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
        (folder / "disc" / f"{number}.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    groups = [file.group for file in find_pictures(folder, ignore) if file.path.suffix == ".jpg"]
    assert None not in groups
    assert len(set(groups)) == 2


def test_a_video_per_class_is_one_recording(tmp_path: Path) -> None:
    for name, count in (("disc.avi", 30), ("other.avi", 10)):
        write_video(tmp_path / name, [picture("disc", number) for number in range(count)], fps=10, codec="MJPG")
    first, second = find_pictures(tmp_path, ignore)
    assert (first.label, second.label) == ("disc", "other")
    assert first.group != second.group
    images = list(read_pictures(first, ignore))
    assert len(images) == 6
    assert images[0].shape == (120, 160, 3)


def test_the_folder_of_data_label(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    cv2.imwrite(str(tmp_path / "crops" / "run-1.png"), np.zeros((9, 9, 3), np.uint8))
    write_pictures(tmp_path / "labelled", 2)
    assert len(find_pictures(tmp_path, ignore)) == 4


@pytest.mark.parametrize("name", ["", "missing"])
def test_no_pictures_are_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        find_pictures(tmp_path / name, ignore)


@pytest.mark.parametrize("name", ["IMG_1.HEIC", None])
def test_a_class_folder_without_readable_pictures_is_an_error(tmp_path: Path, name: str | None) -> None:
    folder = write_pictures(tmp_path / "things", 2)
    (folder / "mug").mkdir()
    if name:
        (folder / "mug" / name).write_bytes(b"picture")
    with pytest.raises(InputError) as caught:
        find_pictures(folder, ignore)
    assert "mug" in str(caught.value)
    assert ("HEIC" in str(caught.value)) == (name is not None)


def test_pictures_without_class_folders_are_an_error_that_says_so(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), picture("disc", number))
    with pytest.raises(InputError, match="not in class folders"):
        find_pictures(tmp_path, ignore)
