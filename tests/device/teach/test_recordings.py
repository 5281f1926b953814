"""Recorded pictures: class folders, their size, and the undo of the latest change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.device.teach.recordings import FullError, Recordings
from edgekit.errors import InputError

VIEWS = np.zeros((2, 4), np.float32)


def files(folder: Path) -> list[str]:
    """Return the pictures that a training would read."""
    found = (path.relative_to(folder) for path in folder.rglob("*.jpg"))
    return sorted(str(path) for path in found if not path.parts[0].startswith("."))


def record(recordings: Recordings, label: str, count: int) -> None:
    group = recordings.begin(label)
    for number in range(count):
        recordings.add(label, group, b"jpeg %d" % number, VIEWS)


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    made = Recordings(tmp_path / "pictures", 1000)
    made.add_class("mug")
    made.add_class("bolt")
    record(made, "mug", 3)
    return made


@pytest.mark.parametrize("change", ["record", "add", "rename", "remove class", "remove picture"])
def test_every_change_is_undone_once(change: str, recordings: Recordings) -> None:
    before = files(recordings.folder)
    classes = {label: list(pictures) for label, pictures in recordings.classes.items()}
    name = recordings.classes["mug"][1].name
    changes = {
        "record": lambda: record(recordings, "bolt", 2),
        "add": lambda: recordings.add_class("nut"),
        "rename": lambda: recordings.rename_class("mug", "cup"),
        "remove class": lambda: recordings.remove_class("mug"),
        "remove picture": lambda: recordings.remove("mug", name),
    }
    changes[change]()
    assert (files(recordings.folder), list(recordings.classes)) != (before, list(classes))
    recordings.undo()
    assert files(recordings.folder) == before
    assert recordings.classes == classes
    assert Recordings(recordings.folder, 1000).classes.keys() == classes.keys(), "the folders are as before, too"
    with pytest.raises(InputError):
        recordings.undo()


def test_pictures_of_two_recordings_in_one_second_are_two_groups(recordings: Recordings) -> None:
    record(recordings, "mug", 2)
    groups = [picture.group for picture in recordings.classes["mug"]]
    assert [groups.count(group) for group in dict.fromkeys(groups)] == [3, 2]
    again = Recordings(recordings.folder, 1000)
    assert [picture.group for picture in again.classes["mug"]] == groups


def test_a_full_folder_takes_no_picture_until_some_are_deleted(recordings: Recordings) -> None:
    recordings.most_bytes = recordings.size_bytes + 10
    with pytest.raises(FullError):
        record(recordings, "bolt", 9)
    assert recordings.size_bytes <= recordings.most_bytes
    recordings.remove_class("mug")
    record(recordings, "bolt", 2)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "a\\b", ".hidden", " a", "a\n", "Mug", "uncertain", "x" * 200]
)
def test_names_that_are_no_new_folder_are_refused(name: str, recordings: Recordings, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for change in (recordings.add_class, lambda name: recordings.rename_class("bolt", name)):
        with pytest.raises(InputError):
            change(name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["eyes closed", "Gänse", "M3 (8.8)"])
def test_names_with_spaces_and_any_letters_are_kept(name: str, recordings: Recordings) -> None:
    recordings.add_class(name)
    assert name in Recordings(recordings.folder, 10**8).classes


@pytest.mark.parametrize(("label", "name"), [("mug", "../../secret"), ("..", "secret"), ("zz", "a.jpg")])
def test_only_recorded_pictures_have_a_path(label: str, name: str, recordings: Recordings, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(InputError):
        recordings.path(label, name)
