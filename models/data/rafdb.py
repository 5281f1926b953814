"""RAF-DB (Li, Deng, Du, CVPR 2017), in the official format and in that of Kaggle.

- Official: `EmoLabel/list_patition_label.txt` with lines like `train_00001.jpg 5`, and
  `Image/aligned/train_00001_aligned.jpg`.
- Kaggle: `{train,test}/{1..7}/*.jpg` beside `train_labels.csv`.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import PurePosixPath

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data.files import LABEL_TABLES, Files, ImageEntry

NAME = "raf-db"
CLASSES = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happy",
    "5": "sad",
    "6": "angry",
    "7": "neutral",
}

_ALIGNED = re.compile(r"(train|test)_\d+_aligned\.")


def entries_from_list(files: Files, label_list: PurePosixPath, where: str, notify: Notify) -> list[ImageEntry]:
    """Return the images of the official label list; a missing image raises an error when it is read.

    Raises:
        InputError: A line is invalid, an image is listed twice, or there are no aligned images.
    """
    root = label_list.parent.parent
    aligned = root / "Image" / "aligned"
    # The image of each name in the list: of train_00001, Image/aligned/train_00001_aligned.jpg.
    found = {image.stem.removesuffix("_aligned"): image for image in files.images if image.parent == aligned}
    if not found:
        raise InputError(f"data '{where}' has RAF-DB's '{label_list}' but no images in '{aligned}'")
    labels = _listed_labels(files, label_list, where)
    unlisted = len(found.keys() - labels.keys())
    if unlisted:
        notify(f"{unlisted} images that are not in '{label_list}' are removed")
    entries = []
    for stem, label in labels.items():
        path = found.get(stem, aligned / f"{stem}_aligned.jpg")
        path_in_data = path.relative_to(root).as_posix()
        split = stem.partition("_")[0]  # of train_00001: train
        entries.append(ImageEntry(path, path_in_data, split, CLASSES[label]))
    position = {name: index for index, name in enumerate(files.names)}  # the fastest order to read; missing ones last
    return sorted(entries, key=lambda entry: position.get(entry.path, len(position)))


def _listed_labels(files: Files, label_list: PurePosixPath, where: str) -> dict[str, str]:
    """Return the label, "1" to "7", of each name in the official list, such as `train_00001`."""
    labels: dict[str, str] = {}
    for number, line in enumerate(files.read(label_list).decode("utf-8-sig", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(" ")
        stem = PurePosixPath(file.strip()).stem
        if label not in CLASSES or not stem.startswith(("train_", "test_")):
            raise InputError(
                f"data '{where}', '{label_list}', line {number}: expected 'train_00001.jpg 5', labels 1 to 7"
            )
        if stem in labels:
            raise InputError(f"data '{where}', '{label_list}', line {number}: '{stem}' is listed twice")
        labels[stem] = label
    if not labels:
        raise InputError(f"data '{where}': RAF-DB's '{label_list}' is empty")
    return labels


def renamed_numbers(files: Files, entries: list[ImageEntry], where: str) -> list[ImageEntry] | None:
    """Return images in folders 1 to 7 with the names of expressions as classes, or None if the data is not RAF-DB.

    The data is RAF-DB if a table `train_labels.csv` lists the files with the numbers of their folders, or if all files
    have names of RAF-DB's aligned images.

    Raises:
        InputError: A table lists a file with another number than that of its folder.
    """
    if not all(entry.class_name in CLASSES for entry in entries):
        return None
    table_labels = _tables(files)
    in_table = [entry for entry in entries if entry.path.name in table_labels]
    for entry in in_table:
        label = table_labels[entry.path.name]
        if label != entry.class_name:
            raise InputError(
                f"data '{where}': '{entry.path}' is in folder {entry.class_name}, but its label in the table is "
                f"{label[:20]}"
            )
    if not in_table and not all(_ALIGNED.match(entry.path.name) for entry in entries):
        return None
    return [replace(entry, class_name=CLASSES[entry.class_name]) for entry in entries]


def _tables(files: Files) -> dict[str, str]:
    """Return the label of each file name in Kaggle's tables, which have rows such as `train_00001_aligned.jpg,5`."""
    labels: dict[str, str] = {}
    for name in files.names:
        if name.name.lower() not in LABEL_TABLES:
            continue
        try:
            for row in csv.reader(io.StringIO(files.read(name).decode("utf-8-sig", "replace"))):
                if len(row) == 2:  # a header has no effect, because no file has its name
                    labels[row[0].strip()] = row[1].strip()
        except csv.Error as error:
            raise InputError(f"'{name}' is a damaged CSV file: {error}") from error
    return labels
