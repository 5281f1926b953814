"""The pictures of a teaching: a folder or a video per class, with the recording that each picture is from.

A folder is arranged as CLASS/picture, CLASS/RECORDING/picture, CLASS/video or as videos named CLASS.mp4. With a folder
`train` beside others, such as `test`, only `train` is taught. The folder of `edgekit data label` has its recordings in
groups.csv.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgekit.device.imaging import IMAGE_SUFFIXES, UNREAD_SUFFIXES, read_image, report_unread
from edgekit.device.sources.files import open_files
from edgekit.device.teach.recordings import check_not_uncertain
from edgekit.errors import InputError
from edgekit.preprocess import ImageU8
from edgekit.tables import csv_rows
from edgekit.text import counted, natural_key

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mjpeg")
_TRAIN = ("train", "training")
_SPLITS = (*_TRAIN, "test", "testing", "val", "valid", "validation")
_GROUPS_FILE = "groups.csv"
_LABELLED = "labelled"
# A pause between two pictures that begins another recording.
_PAUSE_S = 60
# Frames of a video that are taught are this far apart, and so many at most.
_VIDEO_STEP_S = 0.5
_VIDEO_PICTURES = 200
# The time in a file's name, as in IMG_20260131_142501.jpg, and in a JPEG's EXIF data.
_NAME_TIME = re.compile(r"(20\d{6})[-_T]([0-2]\d[0-5]\d[0-5]\d)")
_EXIF_TIME = re.compile(rb"(20\d\d:[01]\d:[0-3]\d [0-2]\d:[0-5]\d:[0-5]\d)\0")
_EXIF_BYTES = 1 << 16


@dataclass(frozen=True)
class PictureFile:
    """An image file or a video of a class; `group` is its recording, None if it is not known."""

    path: Path
    label: str
    group: str | None

    @property
    def is_video(self) -> bool:
        """Whether the file is a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_pictures(folder: Path, notify: Callable[[str], None]) -> list[PictureFile]:
    """Return the image and video files of all classes with their recordings, sorted by class.

    Raises:
        InputError: The folder does not exist, its arrangement is not known, or a class has no pictures.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder: give one with a folder or a video per class")
    root = _taught_folder(folder, notify)
    listed_groups = _listed_groups(root)  # recordings that groups.csv states, by file
    visible = _visible_files(root)
    by_class: dict[str, list[PictureFile]] = {}
    for path in visible:
        suffix, is_in_class_folder = path.suffix.lower(), path.parent != root
        # A video beside the class folders is a class of its own.
        if suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and is_in_class_folder):
            label = path.relative_to(root).parts[0] if is_in_class_folder else path.stem
            by_class.setdefault(label, []).append(PictureFile(path, label, group=None))  # `_with_groups` sets it
    _check_classes(root, visible, set(by_class))
    report_unread(visible, notify)
    if loose := _loose_images(root, visible):
        found = counted(len(loose), "picture is", "pictures are")
        notify(f"{found} not taught, because not in a class folder, such as '{loose[0]}'")
    files: list[PictureFile] = []
    for label in sorted(by_class):
        files += _with_groups(by_class[label], root, listed_groups)
    return files


def read_pictures(file: PictureFile, notify: Callable[[str], None]) -> Iterator[ImageU8]:
    """Yield the B, G, R picture of an image file, or frames of a video: at most two per second, 200 in all.

    Raises:
        InputError: The file cannot be decoded.
    """
    if not file.is_video:
        yield read_image(file.path)
        return
    next_s, count = 0.0, 0
    with open_files(str(file.path), notify) as video:
        for frame in video:
            position_s = frame.position_s or 0.0  # without times, only the first frame is taught
            if position_s >= next_s:
                yield frame.image_bgr
                next_s, count = position_s + _VIDEO_STEP_S, count + 1
            if count == _VIDEO_PICTURES:
                return  # the rest of a long video is not decoded


def _taught_folder(folder: Path, notify: Callable[[str], None]) -> Path:
    """Return the folder that has the class folders: the folder itself, its `train`, or its `labelled`.

    `labelled` is in a folder of `edgekit run --collect`, beside the crops that have no label yet.
    """
    folders: dict[str, Path] = {}  # by name in lower case
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not _is_hidden(each.name):
            folders[each.name.casefold()] = each
    if _LABELLED in folders and (folder / "crops").is_dir():
        return folders[_LABELLED]
    train = next((folders[name] for name in _TRAIN if name in folders), None)
    if train is not None:
        # The warning does not name splits such as `test`, which nobody expects to be taught.
        if others := sorted(folders.keys() - set(_SPLITS)):
            notify(f"only '{train}' is taught; not used: {', '.join(others)}")
        return train
    for name, each in folders.items():
        # A folder `test` with files can be a class of that name; one with folders only is a split.
        is_split = name in _SPLITS and not any(child.is_file() for child in each.iterdir())
        if is_split:
            raise InputError(f"'{folder}' has the folder '{each.name}' but none named train: rename the other one")
    return folder


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out."""
    return name.startswith(".") or name == "__MACOSX"  # macOS adds folders of metadata to archives


def _visible_files(root: Path) -> list[Path]:
    """Return all files in a folder and its sub-folders that are not hidden, in natural order."""
    found = (path for path in root.rglob("*") if path.is_file())
    shown = [path for path in found if not any(map(_is_hidden, path.relative_to(root).parts))]
    return sorted(shown, key=natural_key)


def _loose_images(root: Path, visible: list[Path]) -> list[Path]:
    """Return the image files that are in no class folder."""
    return [path for path in visible if path.parent == root and path.suffix.lower() in IMAGE_SUFFIXES]


def _check_classes(root: Path, visible: list[Path], labels: set[str]) -> None:
    """Raise InputError if there are no classes, a class folder has no pictures, or a class is called "uncertain".

    Args:
        root: The folder of the class folders.
        visible: All files in it.
        labels: The classes with pictures.
    """
    folders = sorted(each for each in root.iterdir() if each.is_dir() and not _is_hidden(each.name))
    for folder in folders:
        if folder.name not in labels:
            suffixes = {path.suffix.lower() for path in visible if folder in path.parents}
            is_unread = not suffixes.isdisjoint(UNREAD_SUFFIXES)
            cure = "HEIC and AVIF are not read: convert them to JPEG" if is_unread else "add some, or delete the folder"
            raise InputError(f"class folder '{folder}' has no pictures that can be read: {cure}")
    if not labels and _loose_images(root, visible):
        raise InputError(f"the pictures of '{root}' are not in class folders: arrange them as CLASS/picture.jpg")
    if not labels:
        raise InputError(f"'{root}' has no pictures: arrange them as CLASS/picture.jpg, or as videos CLASS.mp4")
    for label in labels:
        check_not_uncertain(label)


def _listed_groups(root: Path) -> dict[str, str]:
    """Return the recording of each file that groups.csv lists, by the file's path within `root`."""
    table = root / _GROUPS_FILE
    if not table.is_file():
        return {}
    return {row["path"]: row["group"] for row in csv_rows(table.read_bytes()) if row.get("path") and row.get("group")}


def _with_groups(files: list[PictureFile], root: Path, listed: dict[str, str]) -> list[PictureFile]:
    """Return the files of a class with their recordings, as far as these are known.

    A recording is a video, a group in groups.csv (`listed`) or a sub-folder of the class folder. All other pictures are
    sorted by time, and a pause begins another recording.
    """
    grouped, timed = [], []
    for file in files:
        relative = file.path.relative_to(root)  # CLASS/picture or CLASS/RECORDING/picture
        sub_folder = relative.parent.as_posix() if len(relative.parts) > 2 else None
        group = relative.as_posix() if file.is_video else listed.get(relative.as_posix(), sub_folder)
        if group:
            grouped.append(PictureFile(file.path, file.label, group))
        elif (time := _recording_time(file.path)) is not None:
            timed.append((time, file))
        else:
            grouped.append(file)  # its recording stays unknown
    recording, time_before = 0, None
    for time, file in sorted(timed, key=lambda time_and_file: time_and_file[0]):
        if time_before is None or (time - time_before).total_seconds() > _PAUSE_S:
            recording += 1
        time_before = time
        grouped.append(PictureFile(file.path, file.label, f"{file.label}/recording {recording}"))
    return grouped


def _recording_time(path: Path) -> datetime | None:
    """Return the time of recording in a file's name, or else in its EXIF data; None if there is none."""
    try:
        if match := _NAME_TIME.search(path.stem):
            return datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S")
        with path.open("rb") as file:
            exif = _EXIF_TIME.search(file.read(_EXIF_BYTES))  # cameras write it at the start of a file
        return datetime.strptime(exif[1].decode(), "%Y:%m:%d %H:%M:%S") if exif else None
    except (ValueError, OSError):
        return None
