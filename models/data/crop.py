"""`edgekit.crop_photos`: faces cut out of photographs and videos, for labelling and training.

report = edgekit.crop_photos("photos", "crops")
print(f"{report.crops} crops, {report.without_face} photographs without a face")

A crop has exactly the region that the runtime cuts for a face box, before it is resized. Training that reads a crop as
an image therefore gets the pixels that the runtime computes from the photograph, if the crop was not made smaller
(`max_side_px`).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np

from edgekit.device.detections import Face
from edgekit.device.frame import Source, presentation_time_s
from edgekit.device.imaging import IMAGE_SUFFIXES, at_most, decode_image
from edgekit.device.sources import open_source
from edgekit.errors import InputError
from edgekit.files import exclusive_folder, real_path, write_atomic
from edgekit.models.callbacks import Notify
from edgekit.models.crop_options import CropOptions
from edgekit.models.data.files import ARCHIVE_SUFFIXES, CROP_TABLE, Files, open_files
from edgekit.models.data.photos import PhotoDetector, PhotoFacts, read_photo_table
from edgekit.options import takes
from edgekit.preprocess import CROP_MARGIN, ImageU8, square_crop_box

# Which faces of a photograph are cropped: the largest, all, or the only one of photographs with one face.
WhichFaces: TypeAlias = Literal["largest", "all", "single"]
Status: TypeAlias = Literal["crop", "no face", "several faces", "unreadable"]

_OTHER_ARCHIVES = (".zip", ".7z", ".rar", ".xz", ".bz2")


@dataclass(frozen=True)
class CropRow:
    """One row of `crops.csv`: a crop, or a photograph or video frame without one.

    Attributes:
        path: The crop's file, relative to the table; empty without a crop.
        source: The photograph: name of the data, and path in it; or the video's name.
        time_s: Time of the frame in a video.
        label: Class in the data's photos.csv; empty where only the folder states it.
        person: Person or group in the data's photos.csv.
        x0: Left side of the detector's box in pixels of the photograph; `y0`, `x1` and `y1` are its other sides.
        score: The detector's score.
        faces: Number of detected faces in the photograph.
        status: "crop", "no face", "several faces" (with `faces="single"`) or "unreadable".
    """

    path: str = ""
    source: str = ""
    time_s: float | None = None
    label: str = ""
    person: str = ""
    x0: float | None = None
    y0: float | None = None
    x1: float | None = None
    y1: float | None = None
    score: float | None = None
    faces: int = 0
    status: Status = "crop"


@dataclass(frozen=True)
class CropReport:
    """Result of `crop_photos`.

    Attributes:
        detector: The detector that was used.
        rows: The rows of `crops.csv` for the photographs of this call.
    """

    detector: str
    rows: tuple[CropRow, ...]

    @property
    def photographs(self) -> int:
        """Number of photographs, or frames of the video."""
        return len({(row.source, row.time_s) for row in self.rows})

    @property
    def crops(self) -> int:
        """Number of crops."""
        return self._count("crop")

    @property
    def without_face(self) -> int:
        """Number of photographs without a detected face."""
        return self._count("no face")

    @property
    def several_faces(self) -> int:
        """Number of photographs with more than one detected face."""
        return len({(row.source, row.time_s) for row in self.rows if row.faces > 1})

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The photographs that could not be read."""
        return tuple(row.source for row in self.rows if row.status == "unreadable")

    @property
    def per_folder(self) -> dict[str, int]:
        """Number of crops in each folder, "." being the folder of `crops.csv`."""
        return dict(Counter(str(PurePosixPath(row.path).parent) for row in self.rows if row.path))

    def _count(self, status: Status) -> int:
        return sum(row.status == status for row in self.rows)


@dataclass(frozen=True)
class _Photo:
    """A photograph, or a frame of a video; `target` is the path of its crop without suffix.

    `image` returns the pixels (H, W) or (H, W, 3), B, G, R; it raises InputError if the file cannot be read.
    """

    source: str
    time_s: float | None
    target: PurePosixPath
    facts: PhotoFacts
    image: Callable[[], ImageU8]


@takes(CropOptions)
def crop_photos(options: CropOptions) -> CropReport:
    """Cut the faces out of photographs.

    Crops have the photographs' paths below `output`, so folders of classes and splits are kept. `output/crops.csv`
    lists every photograph; a call with other photographs adds its rows. After an interrupted call, all existing files
    are complete.

    `CropOptions` describes the arguments.

    Raises:
        InputError: The photographs or an option cannot be used, or `output` contains other files, or a crop of the same
            name, or lies in `photos`.
        StorageError: A file cannot be written.
    """
    photos, output = Path(options.photos), Path(options.output)
    if options.faces not in get_args(WhichFaces):
        raise InputError(f"faces is {options.faces!r}: expected one of {', '.join(get_args(WhichFaces))}")
    _check_output(photos, output)
    face_detector = PhotoDetector(
        "yunet" if options.detector is None else str(options.detector),
        min_face_px=options.min_face_px,
        threads=options.threads,
        notify=options.notify,
    )
    with exclusive_folder(output), _open_photos(photos, options.every_s, options.notify) as (total, items):
        return _crop_all(items, total, face_detector, options)


def _check_output(photos: Path, output: Path) -> None:
    """Check that the photographs exist, and that `output` is a new folder or one of crops, outside of `photos`."""
    if not photos.exists():
        raise InputError(f"photographs '{photos}' do not exist: expected a folder, an archive, a video or an image")
    if photos.is_file() and photos.suffix.lower() in _OTHER_ARCHIVES:
        raise InputError(f"archive '{photos}' is not read: unpack it, or pack a .tar or .tar.gz")
    if output.exists() and not output.is_dir():
        raise InputError(f"'{output}' is a file: name a folder for the crops")
    if photos.is_dir() and real_path(output).is_relative_to(real_path(photos)):
        raise InputError(f"'{output}' lies in the photographs' folder '{photos}': name a folder outside")
    if output.is_dir() and any(output.iterdir()) and not (output / CROP_TABLE).exists():
        raise InputError(f"'{output}' contains other files and no {CROP_TABLE}: name a new folder")


def _crop_all(
    items: Iterator[_Photo], total: int | None, face_detector: PhotoDetector, options: CropOptions
) -> CropReport:
    """Write the crops of all photographs, and one table of them, also if an error or the user ends the call.

    `total` is the number of photographs, or None if it is not known before the end, as for some videos.
    """
    output = Path(options.output)
    table = output / CROP_TABLE
    earlier_text = _table_before(table)  # the rows are added to it
    rows: list[CropRow] = []
    try:
        for number, photo in enumerate(items, start=1):
            crops = _crops_of(photo, face_detector, options)
            _write_crops(crops, output)
            rows += [row for row, _ in crops]
            options.progress(number, total)
    finally:
        _write_table(table, earlier_text, rows)
    return CropReport(face_detector.name, tuple(rows))


def _crops_of(
    photo: _Photo, face_detector: PhotoDetector, options: CropOptions
) -> list[tuple[CropRow, ImageU8 | None]]:
    """Return the table's rows for one photograph, each with its crop, or one row without a crop."""
    facts = photo.facts  # from photos.csv
    of_photo = CropRow(source=photo.source, time_s=photo.time_s, label=facts.label, person=facts.person)
    try:
        image = photo.image()
    except InputError as error:
        options.notify(f"{error}: skipped")
        return [(replace(of_photo, status="unreadable"), None)]
    found = face_detector.detect(image)  # the largest face first
    of_photo = replace(of_photo, faces=len(found))
    if len(found) == 0:
        return [(replace(of_photo, status="no face"), None)]
    if options.faces == "single" and len(found) > 1:
        return [(replace(of_photo, status="several faces"), None)]
    chosen = list(found) if options.faces == "all" else [found[0]]
    crops: list[tuple[CropRow, ImageU8 | None]] = []
    for number, face in enumerate(chosen, start=1):
        name = photo.target.name + (f"-face{number}" if number > 1 else "")
        path = photo.target.with_name(f"{name}.png")
        x0, y0, x1, y1 = (round(float(value), 1) for value in face.xyxy)
        row = replace(of_photo, path=str(path), x0=x0, y0=y0, x1=x1, y1=y1, score=round(face.score, 4))
        crops.append((row, crop_region(image, face, options.max_side_px)))
    return crops


def crop_region(image: ImageU8, face: Face, max_side_px: int) -> ImageU8:
    """Return the square that the runtime cuts for a face box, in the image's channels, at most `max_side_px` wide."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = square_crop_box(face.xyxy, (width, height), CROP_MARGIN)
    return at_most(np.ascontiguousarray(image[y0:y1, x0:x1]), max_side_px)


def _write_crops(crops: Iterable[tuple[CropRow, ImageU8 | None]], output: Path) -> None:
    """Write the crops of one photograph as PNG files."""
    for row, crop in crops:
        if crop is None:  # no face was found or chosen: the photograph has only a row in the table
            continue
        path = output / row.path
        if path.exists():
            raise InputError(f"'{path}' exists already: name another folder, or delete '{output}' and crop again")
        _, encoded = cv2.imencode(".png", crop)
        write_atomic(path, encoded.tobytes())


@contextmanager
def _open_photos(photos: Path, every_s: float, notify: Notify) -> Iterator[tuple[int | None, Iterator[_Photo]]]:
    """Open a folder or an archive of photographs, or one video or image: their number, if it is known, and an iterator.

    Each frame of a video that is to be cropped counts as a photograph.
    """
    if photos.is_dir() or photos.name.lower().endswith(ARCHIVE_SUFFIXES):
        with open_files(photos, notify) as files:
            if not files.images:
                expected = f"{', '.join(IMAGE_SUFFIXES)}, or the path of one video"
                raise InputError(f"photographs '{photos}' contain no image: expected {expected}")
            facts = read_photo_table(files, str(photos), notify)
            yield len(files.images), _image_files(files, photos, facts)
        return
    with open_source(str(photos), notify) as source:
        yield _frame_total(source, every_s), _frames(source, photos, every_s)


def _image_files(files: Files, photos: Path, facts: Mapping[PurePosixPath, PhotoFacts]) -> Iterator[_Photo]:
    """Yield the photographs of a folder or archive, with what the table states of them."""
    stem_counts = Counter(name.with_suffix("") for name in files.images)
    for name in files.images:
        stem = name.with_suffix("")
        # Photographs that differ in their suffix only, such as a.jpg and a.png, keep it: their crops need two names.
        crop_stem = name if stem_counts[stem] > 1 else stem
        yield _Photo(
            # With the name of the folder, because later calls can add the photographs of others to the table.
            source=str(PurePosixPath(real_path(photos).name) / name),
            time_s=None,
            target=_inside(crop_stem, photos),  # raises for a name that leads out of the folder of crops
            facts=facts.get(name, PhotoFacts()),
            image=partial(_read, files, name),  # read when it is called
        )


def _read(files: Files, name: PurePosixPath) -> ImageU8:
    return decode_image(files.read(name), str(name))


def _frames(source: Source, path: Path, every_s: float) -> Iterator[_Photo]:
    """Yield the frames of a video that are at least `every_s` apart, or an image."""
    time_of = presentation_time_s(source)
    due_s = 0.0
    for frame in source:
        time_s = round(time_of(frame), 3)
        if time_s < due_s:
            continue
        due_s = time_s + every_s - 1e-3  # a millisecond less, because times are rounded to milliseconds
        is_image = frame.file is not None
        yield _Photo(
            source=path.name,
            time_s=None if is_image else time_s,
            target=PurePosixPath(path.stem if is_image else f"{path.stem}-{frame.sequence:06d}"),
            facts=PhotoFacts(),
            image=partial(getattr, frame, "image_bgr"),  # the frame is converted when this is called
        )


def _frame_total(source: Source, every_s: float) -> int | None:
    """Return how many frames of a video will be cropped; None if its length is unknown."""
    if source.frame_count is None or source.fps is None:
        return source.frame_count
    return math.ceil(source.frame_count / max(source.fps * every_s, 1))


def _table_before(table: Path) -> str:
    """Return the text of an earlier call's table, or the header of a new one; the caller appends its rows.

    Raises:
        InputError: The file is no table of crops.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(each.name for each in fields(CropRow))
    header = text.getvalue()
    if not table.exists():
        return header
    before = table.read_text("utf-8", "surrogateescape")  # written again with the same bytes
    if not before.startswith(header):
        raise InputError(f"'{table}' has other columns: name a new folder for the crops")
    return before


def _write_table(table: Path, before: str, rows: Iterable[CropRow]) -> None:
    """Write the table: the text `before`, then the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows(asdict(row).values() for row in rows)
    write_atomic(table, (before + text.getvalue()).encode("utf-8", "surrogateescape"))


def _inside(name: PurePosixPath, photos: Path) -> PurePosixPath:
    """Return a path, checked to stay inside the folder of crops: archives may contain names of any form."""
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"'{photos}': the name '{name}' leads out of the folder of crops: rename it")
    return name
