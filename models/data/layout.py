"""Split and class of each file of a data set, determined from paths and label lists only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data import ALL_IMAGES, EXPRESSIONS, KNOWN_SPLITS, rafdb
from edgekit.models.data.fer2013 import USAGES
from edgekit.models.data.files import CROP_TABLE, LABEL_LISTS, Files, ImageEntry
from edgekit.models.data.groups import TABLES, group_folders, group_in_name, groups_in_table, time_parts, video_times
from edgekit.text import one_line

T = TypeVar("T")

CONTEMPT = "contempt"

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
    images = files.images
    if not images:
        raise InputError(f"data '{where}' has no image in <split>/<class>/")
    _require_utf8({name.parent for name in images}, where)
    folders_of_classes = {name.parts[:-2] for name in images}
    empty = [str(folder) for folder in files.empty_folders if folder.parts[:-1] in folders_of_classes]
    if empty:
        notify(f"folders without images are ignored: {', '.join(empty)}")
    name = None
    label_lists = [file for file in files.names if file.name.lower() in LABEL_LISTS]
    if len(label_lists) > 1:
        raise InputError(f"data '{where}' has {len(label_lists)} label lists: give the folder of one, such as 'basic'")
    if label_lists:
        name, entries = rafdb.NAME, rafdb.entries_from_list(files, label_lists[0], where, notify)
    else:
        entries = _by_folders(images, where)
        renamed = rafdb.renamed_numbers(files, entries, where)
        if renamed is not None:
            name, entries = rafdb.NAME, renamed
        elif {entry.class_name for entry in entries} == set(rafdb.CLASSES):
            notify("class folders 1 to 7 keep their names: without a train_labels.csv they are not taken for RAF-DB")
    _require_distinct({entry.class_name for entry in entries}, "classes", where)
    _require_distinct({entry.split for entry in entries}, "splits", where)
    _report_misspelt_splits({entry.split for entry in entries}, notify)
    entries = _with_groups(entries, files, notify)
    require_contempt(contempt, {entry.class_name for entry in entries} - {CONTEMPT})
    entries = _apply_contempt(entries, contempt, notify)
    return Layout(name, _ordered({entry.class_name for entry in entries}), tuple(entries))


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
    """Return split and class of each file from its path <split>/<class>/<file>, or without splits <class>/<file>."""
    has_groups = group_folders(files, KNOWN_SPLITS)
    # Paths without the folder of a group: <split>/<class>/<file>.
    images = tuple(file.parent.parent / file.name for file in files) if has_groups else files
    parents = {name.parts[:-2] for name in images}  # the folders of the class folders: splits, if there are several
    for name in images:
        if len(name.parts) < 2 or (len(name.parts) < 3 and len(parents) > 1):
            raise InputError(
                f"data '{where}': '{name}' is not in <split>/<class>/: arrange it as train/<class>/…, val/<class>/…"
            )
    names_have_split = all(_USAGE_PREFIX.match(name.name) for name in images)
    only_parent = next(iter(parents)) if len(parents) == 1 else None
    has_splits = only_parent is None or (only_parent != () and only_parent[-1].casefold() in KNOWN_SPLITS)
    root_length = _common_start([name.parts[: -3 if has_splits else -2] for name in images])
    entries = []
    for file, name in zip(files, images, strict=True):
        split = name.parts[-3] if has_splits else ALL_IMAGES
        if names_have_split:
            split = name.name.partition("_")[0]
        group = file.parts[-2] if has_groups else ""
        path_in_data = "/".join(file.parts[root_length:])
        entries.append(ImageEntry(file, path_in_data, split, canonical_class(name.parts[-2]), group))
    if all(entry.class_name.casefold() in KNOWN_SPLITS for entry in entries):
        raise InputError(
            f"data '{where}' has no class folders: '{images[0]}' is directly in a split, expected train/<class>/…, "
            "val/<class>/…"
        )
    return entries


def _with_groups(entries: list[ImageEntry], files: Files, notify: Notify) -> list[ImageEntry]:
    """Return the entries with their groups: from tables, from the paths, or for crops of a video from their times.

    Of several tables, the first of `TABLES` that lists the image is used. Where tables list some of the images, each of
    the others is a group of its own.
    """
    listed: dict[str, dict[PurePosixPath, str]] = {name: {} for name in TABLES}
    videos: dict[PurePosixPath, tuple[str, float]] = {}
    images = set(files.images)
    for table in files.names:
        if (name := table.name.lower()) in TABLES:
            content = files.read(table)
            listed[name] |= groups_in_table(table, content, images)
            if name == CROP_TABLE:
                videos |= video_times(table, content, images)
    in_tables = [_in_first_table(entry.path, *listed.values()) for entry in entries]
    parts = _video_parts(entries, videos)
    if not any(in_tables) and (lost := next((path for each in listed.values() for path in each), None)):
        notify(one_line(f"no group in a table is used: none of its paths is an image, such as '{lost}'"))
    others_are_alone = any(in_tables) or bool(parts)
    result = []
    for entry, in_table in zip(entries, in_tables, strict=True):
        group = in_table or group_in_name(entry.path.name) or entry.group or parts.get(entry.path)
        if not group:
            group = entry.name if others_are_alone else ""
        result.append(replace(entry, group=group))
    return result


def _video_parts(
    entries: Iterable[ImageEntry], videos: Mapping[PurePosixPath, tuple[str, float]]
) -> dict[PurePosixPath, str]:
    """Return the groups of the crops of videos, apart for each class, which can be in a short part of a video only."""
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
        except UnicodeEncodeError as error:
            raise InputError(f"data '{where}': the folder name '{folder}' is not valid UTF-8: rename it") from error


def _apply_contempt(entries: list[ImageEntry], contempt: str, notify: Notify) -> list[ImageEntry]:
    """Return the images with those of contempt dropped, kept, or counted as the class `contempt`.

    Nothing is changed if the other classes are not expressions: contempt then is a class as any other.
    """
    others = {entry.class_name for entry in entries} - {CONTEMPT}
    rest = [entry for entry in entries if entry.class_name != CONTEMPT]
    if len(rest) == len(entries) or not others or not others <= set(EXPRESSIONS) or contempt == "keep":
        return entries
    count = len(entries) - len(rest)
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
