"""Split and class of each file of a data set, determined from paths and label lists only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeAlias, TypeVar

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data import ALL_IMAGES, EXPRESSIONS, KNOWN_SPLITS, rafdb
from edgekit.models.data.fer2013 import USAGES
from edgekit.models.data.files import CROP_TABLE, LABEL_LISTS, Files, ImageEntry
from edgekit.models.data.groups import TABLES, group_folders, group_in_name, groups_in_table, time_parts, video_times
from edgekit.text import one_line

T = TypeVar("T")

CONTEMPT = "contempt"

# For each crop of a video: the video, and the time in seconds.
_VideoTimes: TypeAlias = dict[PurePosixPath, tuple[str, float]]
_USAGE_PREFIX = re.compile(r"(Training|PublicTest|PrivateTest)_\d+\.")
_ALIASES = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprised": "surprise", "fearful": "fear"}
_ALIASES |= {"disgusted": "disgust"}


@dataclass(frozen=True)
class Layout:
    """Name of the data set (if its format contains one), classes in label order, images in file order."""

    name: str | None
    classes: tuple[str, ...]
    entries: tuple[ImageEntry, ...]


def find_layout(files: Files, where: str, contempt: str, notify: Notify) -> Layout:
    """Return split and class of each file.

    Args:
        files: From `open_files`.
        where: Name of the data in messages.
        contempt: See `edgekit.models.data.readers.load_dataset`.
        notify: Called with messages for the user.

    Raises:
        InputError: The arrangement of the files is not recognised.
    """
    if not files.images:
        raise InputError(f"data '{where}' has no image in <split>/<class>/")
    _require_utf8({name.parent for name in files.images}, where)
    # The folders that contain class folders: those of the splits, or without splits the one of the data.
    parents = {image.parts[:-2] for image in files.images}
    empty_classes = [str(folder) for folder in files.empty_folders if folder.parts[:-1] in parents]
    if empty_classes:
        notify(f"folders without images are ignored: {', '.join(empty_classes)}")
    name, entries = _named_entries(files, where, notify)
    classes, splits = {entry.class_name for entry in entries}, {entry.split for entry in entries}
    _require_distinct(classes, "classes", where)
    _require_distinct(splits, "splits", where)
    _report_misspelt_splits(splits, notify)
    entries = _with_groups(entries, files, notify)
    require_contempt(contempt, classes - {CONTEMPT})
    entries = _apply_contempt(entries, contempt, notify)
    return Layout(name, _ordered({entry.class_name for entry in entries}), tuple(entries))


def _named_entries(files: Files, where: str, notify: Notify) -> tuple[str | None, list[ImageEntry]]:
    """Return the name of the data set, if its format contains one, and its images without groups."""
    label_lists = [file for file in files.names if file.name.lower() in LABEL_LISTS]  # official ones of RAF-DB
    if len(label_lists) > 1:
        raise InputError(f"data '{where}' has {len(label_lists)} label lists: give the folder of one, such as 'basic'")
    if label_lists:
        return rafdb.NAME, rafdb.entries_from_list(files, label_lists[0], where, notify)
    entries = _by_folders(files.images, where)
    renamed = rafdb.renamed_numbers(files, entries, where)
    if renamed is not None:
        return rafdb.NAME, renamed
    if {entry.class_name for entry in entries} == set(rafdb.CLASSES):
        notify("class folders 1 to 7 keep their names: without a train_labels.csv they are not taken for RAF-DB")
    return None, entries


def canonical_class(name: str) -> str:
    """Return the standard name of an expression ('Anger' → 'angry'); other names are unchanged."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower, lower)
    return lower if lower in (*EXPRESSIONS, CONTEMPT) else name


def require_contempt(contempt: str, others: Iterable[str]) -> None:
    """Check the value of the option `contempt`, even if the data has no class "contempt".

    Raises:
        InputError: The value is neither "drop" nor "keep" nor one of the `others` classes.
    """
    classes = set(others)
    if contempt not in ("drop", "keep") and canonical_class(contempt) not in classes:
        raise InputError(
            f"contempt is '{contempt}', but the data has no such class: expected drop, keep or one of "
            f"{', '.join(_ordered(classes))}"
        )


def split_order(splits: Iterable[str]) -> list[str]:
    """Return split names in order: those of FER-2013 in its order, then others alphabetically."""
    return sorted(splits, key=lambda name: (USAGES.index(name) if name in USAGES else len(USAGES), name))


def _by_folders(files: tuple[PurePosixPath, ...], where: str) -> list[ImageEntry]:
    """Return split and class of each file from its path.

    A path is <split>/<class>/<file>, or without splits <class>/<file>. Both may have the folder of a group before the
    file, and other folders at the start. An example with all of them is data/train/happy/person-12/003.jpg. If all
    paths start with data/, the path in the data is train/happy/person-12/003.jpg.
    """
    has_groups = group_folders(files, KNOWN_SPLITS)
    # The paths without the folders of groups, such as data/train/happy/003.jpg.
    images = tuple(file.parent.parent / file.name for file in files) if has_groups else files
    has_splits = _have_split_folders(images, where)
    names_have_split = all(_USAGE_PREFIX.match(image.name) for image in images)  # as in Training_123.jpg
    # The folders at the start that all paths share are not part of the path in the data. Folders of splits and classes
    # are part of it, also if there is only one, so they are not compared.
    roots = [image.parts[:-3] if has_splits else image.parts[:-2] for image in images]
    root_length = _common_start(roots)
    entries = []
    for file, image in zip(files, images, strict=True):
        split = image.parts[-3] if has_splits else ALL_IMAGES
        if names_have_split:
            split = image.name.partition("_")[0]
        group = file.parts[-2] if has_groups else ""
        path_in_data = "/".join(file.parts[root_length:])
        entries.append(ImageEntry(file, path_in_data, split, canonical_class(image.parts[-2]), group))
    if all(entry.class_name.casefold() in KNOWN_SPLITS for entry in entries):
        raise InputError(
            f"data '{where}' has no class folders: '{images[0]}' is directly in a split, expected train/<class>/…, "
            "val/<class>/…"
        )
    return entries


def _have_split_folders(images: Iterable[PurePosixPath], where: str) -> bool:
    """Return whether the class folders lie in folders of splits.

    They do if they lie in several folders, or in one folder with a usual name of a split.
    """
    parents = {image.parts[:-2] for image in images}  # the folders of the class folders
    least_parts = 3 if len(parents) > 1 else 2  # <split>/<class>/<file>, or <class>/<file>
    for image in images:
        if len(image.parts) < least_parts:
            raise InputError(
                f"data '{where}': '{image}' is not in <split>/<class>/: arrange it as train/<class>/…, val/<class>/…"
            )
    if len(parents) > 1:
        return True
    (only_parent,) = parents
    return only_parent != () and only_parent[-1].casefold() in KNOWN_SPLITS


def _with_groups(entries: list[ImageEntry], files: Files, notify: Notify) -> list[ImageEntry]:
    """Return the entries with their groups: from tables, from the paths, or for crops of a video from their times.

    Of several tables, the first of `TABLES` that lists the image is used. Where some images have a group from a table
    or a video, each image without a group becomes a group of its own.
    """
    groups_by_table, videos = _read_group_tables(files)
    in_tables = [_in_first_table(entry.path, *groups_by_table.values()) for entry in entries]
    listed_paths = [path for groups in groups_by_table.values() for path in groups]
    if listed_paths and not any(in_tables):
        notify(one_line(f"no group in a table is used: none of its paths is an image, such as '{listed_paths[0]}'"))
    parts = _video_parts(entries, videos)
    # Pictures that were added by hand are in no table. Groups in names alone are used only if every image has one,
    # because single names can match by chance.
    others_are_alone = any(in_tables) or bool(parts)
    result = []
    for entry, in_table in zip(entries, in_tables, strict=True):
        group = in_table or group_in_name(entry.path.name) or entry.group or parts.get(entry.path)
        if not group:
            group = entry.name if others_are_alone else ""
        result.append(replace(entry, group=group))
    return result


def _read_group_tables(files: Files) -> tuple[dict[str, dict[PurePosixPath, str]], _VideoTimes]:
    """Return for each of `TABLES` the group of each path that it lists, and for crops of videos their times."""
    groups: dict[str, dict[PurePosixPath, str]] = {name: {} for name in TABLES}
    videos: _VideoTimes = {}
    images = set(files.images)
    for table in files.names:
        name = table.name.lower()
        if name in TABLES:
            content = files.read(table)
            groups[name] |= groups_in_table(table, content, images)  # several folders may have a table of this name
            if name == CROP_TABLE:
                videos |= video_times(table, content, images)
    return groups, videos


def _video_parts(entries: Iterable[ImageEntry], videos: _VideoTimes) -> dict[PurePosixPath, str]:
    """Return the groups of the crops of videos: parts of a video's time, see `time_parts`.

    Each class and split has parts of its own, because a class can occur in a short part of a video only.
    """
    times = {}
    for entry in entries:
        if found := _in_first_table(entry.path, videos):
            video, time_s = found
            times[entry.path] = f"{video}-{entry.split}-{entry.class_name}", time_s
    return time_parts(times)


def _in_first_table(path: PurePosixPath, *tables: Mapping[PurePosixPath, T]) -> T | None:
    """Return what the first table states that lists an image by its path or its name."""
    return next((found for each in tables if (found := each.get(path) or each.get(PurePosixPath(path.name)))), None)


def _require_distinct(names: set[str], kind: str, where: str) -> None:
    """Check that no two names, of the kind "classes" or "splits", differ only in case."""
    folded: dict[str, str] = {}
    for name in sorted(names):
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise InputError(f"data '{where}': the {kind} '{other}' and '{name}' differ only in case: rename one")


def _report_misspelt_splits(splits: set[str], notify: Notify) -> None:
    """Warn about each split whose name is nearly a usual one that the data does not have."""
    known = KNOWN_SPLITS - {ALL_IMAGES} - {split.casefold() for split in splits}
    for split in sorted(split for split in splits if split.casefold() not in KNOWN_SPLITS):
        if near := difflib.get_close_matches(split.casefold(), known, n=1, cutoff=0.7):
            notify(f"warning: the folder '{split}' is a split of its own: if it is the split '{near[0]}', rename it")


def _require_utf8(folders: Iterable[PurePosixPath], where: str) -> None:
    """Check the names of folders, which become names of splits and classes."""
    for folder in folders:
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:  # Python represents other bytes in names by surrogates
            raise InputError(f"data '{where}': the folder name '{folder}' is not valid UTF-8: rename it") from error


def _apply_contempt(entries: list[ImageEntry], contempt: str, notify: Notify) -> list[ImageEntry]:
    """Return the images with those of contempt dropped, kept, or counted as the class `contempt`.

    Nothing is changed if the other classes are not expressions: contempt then is a class as any other.
    """
    others = {entry.class_name for entry in entries} - {CONTEMPT}
    others_are_expressions = bool(others) and others <= set(EXPRESSIONS)
    rest = [entry for entry in entries if entry.class_name != CONTEMPT]
    count = len(entries) - len(rest)
    if contempt == "keep" or count == 0 or not others_are_expressions:
        return entries
    if contempt == "drop":
        notify(f"{count} images of contempt are removed (the option contempt can include them)")
        return rest
    target = canonical_class(contempt)
    notify(f"{count} images of contempt are counted as {target}")
    return [replace(entry, class_name=target) if entry.class_name == CONTEMPT else entry for entry in entries]


def _ordered(classes: set[str]) -> tuple[str, ...]:
    """Return classes in label order: expressions in that of FER-2013, others alphabetically."""
    usual = (*EXPRESSIONS, CONTEMPT)
    if classes <= set(usual):
        return tuple(name for name in usual if name in classes)
    return tuple(sorted(classes))


def _common_start(folders: list[tuple[str, ...]]) -> int:
    """Return the number of leading path parts that all folders share."""
    first, last = min(folders), max(folders)  # what these two share, all between them share, too
    shortest = min(len(first), len(last))
    return next((index for index in range(shortest) if first[index] != last[index]), shortest)
