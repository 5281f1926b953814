"""Groups of images that belong together, such as those of one person or one track: read from tables and names.

A validation part is cut off by whole groups, so that no person is on both sides.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import PurePosixPath

from edgekit.tables import csv_rows

# Tables inside the data, and the columns that name a file and its group, in order of preference.
TABLES = ("persons.csv", "photos.csv", "groups.csv", "labels.csv", "crops.csv", "crops.jsonl")
_FILE_COLUMNS = ("path", "file", "name")
_GROUP_COLUMNS = ("person", "group", "subject", "track")
# Groups of a video's crops of one class: one group would leave nothing to validate on where a class has one video.
VIDEO_PARTS = 5

_WORD = "(?:person|subject|track|group)"
_FOLDER = re.compile(rf"{_WORD}[-_ ]?\w+", re.IGNORECASE)
# person-12_003.jpg, track7-003.png; and CK+: subject, sequence, frame.
_FILE = re.compile(rf"({_WORD}[-_ ]?\d+)[-_ ]|(S\d{{3}})_\d{{3}}_\d{{8}}\.", re.IGNORECASE)
_TRACK_NUMBER = re.compile(r"track[-_ ]?\d+", re.IGNORECASE)


def group_folders(images: Sequence[PurePosixPath], splits: Set[str]) -> bool:
    """Return whether the innermost folders are groups in class folders, as in `happy/person-12/003.jpg`.

    They are if all have a name such as `person-12` or `track7`, and if the folders above them can be classes: there
    are at least two, and none has the name of a split. `splits` are names of splits in lower case.
    """
    are_in_groups = all(len(image.parts) > 2 and _FOLDER.fullmatch(image.parts[-2]) for image in images)
    if not are_in_groups:
        return False
    folders_above = {image.parts[-3].casefold() for image in images}
    return len(folders_above) > 1 and folders_above.isdisjoint(splits)


def group_in_name(file: str) -> str | None:
    """Return the group in the name of a file; None if it has none."""
    match = _FILE.match(file)
    return match and (match[1] or match[2])


def shared_groups(first: Iterable[str] | None, second: Iterable[str] | None) -> list[str]:
    """Return the groups that are in both parts of a data set, sorted; None stands for groups that are not known.

    Bare track numbers, such as `track-3`, are left out: each run numbers its tracks from 1, so that equal numbers are
    tracks of different runs.
    """
    if first is None or second is None:
        return []
    return sorted(name for name in {*first} & {*second} if not _TRACK_NUMBER.fullmatch(name))


def groups_in_table(table: PurePosixPath, content: bytes, images: Set[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Return the group of each file that a table names; empty if it has no column of files or of groups.

    The keys are paths of `images`. A path in the table that is no image is kept as a key, because an image is also
    found by its file name alone.
    """
    groups = {}
    for file, row in _files(table, content, images):
        # A group may be the number 0, in JSON lines.
        column = next((column for column in _GROUP_COLUMNS if row.get(column) not in (None, "")), None)
        if column:
            groups[file] = f"{column}-{row[column]}"
    return groups


def video_times(
    table: PurePosixPath, content: bytes, images: Set[PurePosixPath]
) -> dict[PurePosixPath, tuple[str, float]]:
    """Return the video, and the time in seconds, of each crop in a `crops.csv` that was cut out of a video.

    The keys are as for `groups_in_table`.
    """
    times = {}
    for file, row in _files(table, content, images):
        time_s = _time_s(row)
        if time_s is not None:  # crops of photographs have no time
            video = table.parent / str(row.get("source"))
            times[file] = f"video-{video}", time_s
    return times


def time_parts(times: Mapping[PurePosixPath, tuple[str, float]]) -> dict[PurePosixPath, str]:
    """Return the group of each file: the time of each video is cut into `VIDEO_PARTS` equal parts, which are groups.

    Neighbouring frames are almost equal, so they belong together.

    Args:
        times: Video, and time in seconds, of each file.
    """
    spans_s: dict[str, tuple[float, float]] = {}
    for video, time_s in times.values():
        start_s, end_s = spans_s.get(video, (time_s, time_s))
        spans_s[video] = min(start_s, time_s), max(end_s, time_s)
    parts = {}
    for file, (video, time_s) in times.items():
        start_s, end_s = spans_s[video]
        duration_s = (end_s - start_s) or 1.0  # of a video with one frame only, all is in part 0
        part = int(VIDEO_PARTS * ((time_s - start_s) / duration_s))
        parts[file] = f"{video}-{min(part, VIDEO_PARTS - 1)}"  # the last frame belongs to the last part
    return parts


def _files(
    table: PurePosixPath, content: bytes, images: Set[PurePosixPath]
) -> Iterator[tuple[PurePosixPath, Mapping[str, object]]]:
    """Yield file and row for each row of a table that names a file.

    The file is the path in `images` that the row means, or else the path as it is in the table.
    """
    for row in _rows(table, content):
        stated = next((str(row[column]) for column in _FILE_COLUMNS if row.get(column)), None)
        if stated:
            yield listed_image(stated, table.parent, images) or PurePosixPath(stated), row


def _time_s(row: Mapping[str, object]) -> float | None:
    """Return the time of a video's frame in a row of `crops.csv`; None if the row has none."""
    try:
        time_s = float(str(row.get("time_s")))
    except ValueError:
        return None
    return time_s if 0 <= time_s < math.inf else None  # also None for "nan", which is in no range


def listed_image(text: str, folder: PurePosixPath, images: Set[PurePosixPath]) -> PurePosixPath | None:
    """Return the image that a path in a table means, or None; `folder` is the table's folder.

    The path is relative to this folder, or begins with the folder's own name.
    """
    path = PurePosixPath(text)
    candidates = [folder / path, folder.parent / path]
    if folder == PurePosixPath():
        # The table lies in the folder of the data, whose name is not known here: any first part may be this name.
        candidates.append(PurePosixPath(*path.parts[1:]))
    return next((name for name in candidates if name in images), None)


def _rows(table: PurePosixPath, content: bytes) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a CSV or of JSON lines; damaged ones are left out."""
    if table.suffix.lower() == ".csv":
        with suppress(csv.Error):  # a damaged table states no groups
            yield from csv_rows(content)
        return
    for line in content.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last line of an interrupted collection, or one that is damaged
        if isinstance(row, dict):
            yield row
