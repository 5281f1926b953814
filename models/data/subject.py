"""What a data set shows, from its classes and some of its pictures: faces, or whole images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Subject
from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.models.callbacks import ignore_message
from edgekit.models.data import EXPRESSIONS, rafdb
from edgekit.models.data.coop import is_split_file
from edgekit.models.data.files import CROP_TABLE
from edgekit.models.data.layout import CONTEMPT, Layout
from edgekit.models.data.originals import spread
from edgekit.models.data.pixels import single_channel_if_gray
from edgekit.models.data.readers import is_of_files, open_layout

# Larger pictures are not taken for the crops of a face data set.
_MOST_FACE_PX = 64
_PICTURES = 24


@dataclass(frozen=True)
class Look:
    """What `look_at` found: why the data shows faces (empty: it does not), and how many of some pictures are square."""

    faces_because: str
    pictures: int = 0
    squares: int = 0

    @property
    def subject(self) -> Subject:
        """What the data shows."""
        return "face" if self.faces_because else "image"

    @property
    def is_square(self) -> bool:
        """Whether all of the pictures are square."""
        return self.squares == self.pictures


def look_at(path: Path, contempt: str) -> Look:
    """Return what the data at `path` shows; `contempt` as for `edgekit.models.data.readers.load_dataset`.

    Faces are the known face data sets, the crops of `edgekit data crop`, and gray squares of at most 64 pixels.

    Raises:
        InputError: The data cannot be read.
    """
    if not (is_split_file(path) or is_of_files(path)):
        return Look("it has the format of FER-2013")
    with open_layout(path, contempt, ignore_message) as (files, layout):
        names = [layout.entries[index].path for index in spread(len(layout.entries), _PICTURES)]
        pictures = []
        for name in names:
            try:
                pictures.append(single_channel_if_gray(decode_image(files.read(name), str(name))))
            except InputError:
                continue  # reported with all others when the images are read
        squares = [picture.shape[0] == picture.shape[1] for picture in pictures]
        is_cut = any(name.name.lower() == CROP_TABLE for name in files.names)
    if reason := _known_faces(layout):
        return Look(reason, len(pictures), sum(squares))
    if is_cut and all(squares):
        return Look(f"its {CROP_TABLE} lists crops of faces", len(pictures), sum(squares))
    is_small = all(len(each) <= _MOST_FACE_PX and (each.ndim == 2 or each.shape[2] == 1) for each in pictures)
    reason = f"its pictures are gray squares of at most {_MOST_FACE_PX} px" if is_small and all(squares) else ""
    return Look(reason, len(pictures), sum(squares))


def _known_faces(layout: Layout) -> str:
    if layout.name == rafdb.NAME:
        return f"it is {rafdb.NAME}"
    return "its classes are expressions" if set(layout.classes) <= {*EXPRESSIONS, CONTEMPT} else ""
