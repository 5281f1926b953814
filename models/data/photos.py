"""Photographs: whole pictures in folders or archives, what is known of each, and the faces in them.

A file `photos.csv` among the pictures may give each one a label and a person, or a group such as a place or a day:

    path,label,person
    monday/001.jpg,happy,12

`path` is relative to the folder of `photos.csv`, or starts with that folder's own name. The columns label and person
are optional; the column `group` has the meaning of `person`. Without labels the pictures are in class folders.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from edgekit.device.detection import Sizable, create_detector
from edgekit.device.detections import Detections
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame
from edgekit.device.region import detector_input_px
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data import ALL_IMAGES
from edgekit.models.data.files import PHOTO_TABLE, Files, ImageEntry
from edgekit.models.data.groups import listed_image
from edgekit.models.data.layout import canonical_class, find_layout
from edgekit.preprocess import ImageU8
from edgekit.tables import csv_rows
from edgekit.text import counted, one_line


@dataclass(frozen=True)
class PhotoFacts:
    """What `photos.csv` states of one photograph; text that is not given is empty."""

    label: str = ""
    person: str = ""


class PhotoDetector:
    """Detects the faces of single photographs, as `edgekit run` does for a folder of images."""

    def __init__(self, detector: str, *, min_face_px: int = 0, threads: int | None = None, notify: Notify) -> None:
        """Create the detector; see `edgekit.device.detection.create_detector` for arguments and errors.

        Args:
            detector: Name of the detector, or YuNet's .onnx file.
            min_face_px: Smallest mean side of a face in pixels of the photograph; 0: no limit.
            threads: Threads within one inference.
            notify: Called with one line about a download or a replaced detector.
        """
        self._detector = create_detector(detector, intra_op_threads=threads, notify=notify)
        self.name = self._detector.name
        self._min_face_px = min_face_px

    def detect(self, image: ImageU8) -> Detections:
        """Return the faces of a uint8 (H, W) or (H, W, 3) B, G, R image, the largest first."""
        frame = Frame(0, 0.0, 0.0, as_frame(image))  # its number and times have no effect
        if self._min_face_px > 0 and isinstance(self._detector, Sizable):  # others choose their input size themselves
            self._detector.input_size_px = detector_input_px(frame.size_wh, self._min_face_px)
        # A new tracker for each photograph, so that no face is followed from one to the next.
        face_tracker = FaceTracker(self._detector, schedule=None, min_face_px=self._min_face_px)
        faces = face_tracker.find(frame, StageTimer())
        areas = (faces.xyxy[:, 2:] - faces.xyxy[:, :2]).prod(axis=1)
        return faces[np.argsort(-areas, kind="stable")]


def read_photo_table(files: Files, where: str, notify: Notify) -> Mapping[PurePosixPath, PhotoFacts]:
    """Return what `photos.csv` states of the images of `files`; empty if there is no such file.

    Args:
        files: From `edgekit.models.data.files.open_files`.
        where: Name of the data in messages.
        notify: Called with one line about rows of no image.

    Raises:
        InputError: There are several such files, or one lacks the column path, is damaged, or lists an image twice.
    """
    tables = [name for name in files.names if name.name.lower() == PHOTO_TABLE]
    if not tables:
        return {}
    if len(tables) > 1:
        raise InputError(f"data '{where}' has {len(tables)} files {PHOTO_TABLE}: give the folder of one")
    table, images = tables[0], set(files.images)
    facts: dict[PurePosixPath, PhotoFacts] = {}
    lost = []
    for row in _rows(files, table, where):
        path = listed_image(row.get("path", ""), table.parent, images)
        if path is None:
            lost.append(row.get("path", ""))
            continue
        if path in facts:
            raise InputError(f"data '{where}', '{table}' lists '{path}' twice: keep one row")
        person = row.get("person", "") or row.get("group", "")  # the column has one of two names
        facts[path] = PhotoFacts(canonical_class(row.get("label", "")), person)
    if not facts:
        raise InputError(f"data '{where}', '{table}': none of its paths is an image of the data: check the column path")
    if lost:
        notify(
            one_line(
                f"not used: {counted(len(lost), 'row')} of {PHOTO_TABLE} whose path is no image, such as '{lost[0]}'"
            )
        )
    return facts


def labelled_photos(files: Files, where: str, notify: Notify) -> list[ImageEntry]:
    """Return the photographs with their classes, from `photos.csv` or from class folders, in the fastest order to read.

    Raises:
        InputError: As `read_photo_table`, or the pictures are neither in class folders nor labelled.
    """
    facts = read_photo_table(files, where, notify)
    labels = {path: fact.label for path, fact in facts.items() if fact.label}
    if not labels:
        return list(find_layout(files, where, contempt="keep", notify=notify).entries)
    if unlabelled := len(files.images) - len(labels):
        notify(f"{unlabelled} pictures without a label in {PHOTO_TABLE} are left out")
    # The order is that of `files.images`, the fastest one to read, and not that of the table.
    return [ImageEntry(path, str(path), ALL_IMAGES, labels[path]) for path in files.images if path in labels]


def _rows(files: Files, name: PurePosixPath, where: str) -> list[dict[str, str]]:
    """Return the rows of the table `name`; `where` is the name of the data in errors."""
    try:
        rows = csv_rows(files.read(name))
    except csv.Error as error:
        raise InputError(f"data '{where}', '{name}' is a damaged CSV file: {error}") from error
    if rows and not any("path" in row for row in rows):
        raise InputError(f"data '{where}', '{name}' lacks the column path: expected path,label,person")
    return rows
