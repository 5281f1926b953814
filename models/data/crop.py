"""`edgekit.crop_photos`: faces cut out of photographs and videos, for labelling and training.

report = edgekit.crop_photos("photos", "crops")
print(f"{report.crops} crops, {report.without_face} photographs without a face")

A crop has exactly the region that the runtime cuts for a face box, before it is resized. Training that reads a crop as
an image therefore gets the pixels that the runtime computes from the photograph, if the crop was not made smaller
(`max_side_px`).
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import cv2
import msgspec
import numpy as np

from edgekit.device.detections import Face
from edgekit.device.frame import Source, presentation_time_s
from edgekit.device.imaging import IMAGE_SUFFIXES, at_most, decode_image
from edgekit.device.sources import open_source
from edgekit.errors import InputError
from edgekit.files import exclusive_folder, real_path, write_atomic
from edgekit.models.callbacks import Notify
from edgekit.models.crop_options import CropOptions
from edgekit.models.data.files import ARCHIVE_SUFFIXES, CROP_TABLE, open_files
from edgekit.models.data.photos import PhotoDetector, PhotoFacts, read_photo_table
from edgekit.options import takes
from edgekit.preprocess import CROP_MARGIN, ImageU8, square_crop_box

# Which faces of a photograph are cropped: the largest, all, or the only one of photographs with one face.
WhichFaces: TypeAlias = Literal["largest", "all", "single"]
Status: TypeAlias = Literal["crop", "no face", "several faces", "unreadable"]
# A photograph: its source, and the time of a video's frame.
Key: TypeAlias = tuple[str, float | None]

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
        settings: The options that the result depends on.
        sha256: First 16 digits of the SHA-256 of the photograph's file or the frame's pixels; empty if unreadable.
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
    settings: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class CropReport:
    """Result of `crop_photos`.

    Attributes:
        detector: The detector that was used.
        rows: The rows of `crops.csv` for the photographs of this call.
        present: Number of photographs that an earlier call had cropped with the same options.
    """

    detector: str
    rows: tuple[CropRow, ...]
    present: int

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
    """A photograph, whose file `file` reads, or a frame `frame_bgr`; `target` is its crop's path without suffix."""

    source: str
    time_s: float | None
    target: PurePosixPath
    facts: PhotoFacts
    file: Callable[[], bytes] = bytes
    frame_bgr: ImageU8 | None = None

    @property
    def key(self) -> Key:
        return self.source, self.time_s

    @cached_property
    def content(self) -> bytes:
        return self.file()

    @cached_property
    def sha256(self) -> str:
        """First digits of the SHA-256 of the file or of the frame's pixels; empty if the file cannot be read."""
        try:
            data = self.content if self.frame_bgr is None else self.frame_bgr.tobytes()
        except InputError:
            return ""
        return hashlib.sha256(data).hexdigest()[:16]

    def image(self) -> ImageU8:
        return decode_image(self.content, self.source) if self.frame_bgr is None else self.frame_bgr


@takes(CropOptions)
def crop_photos(options: CropOptions) -> CropReport:
    """Cut the faces out of photographs.

    Crops have the photographs' paths below `output`, so folders of classes and splits are kept. `output/crops.csv`
    lists every photograph. Photographs that an earlier call cropped with the same options are skipped. After an
    interrupted call, all existing files are complete.

    `CropOptions` describes the arguments.

    Raises:
        InputError: The photographs or an option cannot be used, or `output` contains other files or lies in `photos`.
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
    limits = f"at default px, min face {options.min_face_px} px, {options.faces}"
    is_file = str(options.detector).endswith(".onnx")
    model = f" ({Path(str(options.detector)).name})" if is_file else ""
    description = f"{face_detector.name}{model} {limits}, margin {CROP_MARGIN:g}, at most {options.max_side_px} px, png"
    with exclusive_folder(output), _open_photos(photos, options.every_s, options.notify) as (total, items):
        return _crop_all(items, total, face_detector, options, description)


def _check_output(photos: Path, output: Path) -> None:
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
    items: Iterator[_Photo], total: int | None, face_detector: PhotoDetector, options: CropOptions, description: str
) -> CropReport:
    output = Path(options.output)
    table = output / CROP_TABLE
    done = read_rows(table)
    owners = {row.path: key for key, rows in done.items() for row in rows if row.path}
    visited: list[Key] = []
    present = 0
    write_rows(table, done)
    try:
        for photo in items:
            earlier = done.get(photo.key, [])
            _check_same(photo, earlier, output)
            if _is_current(photo, earlier, description, output):
                present += 1
                done[photo.key] = [_with_facts(row, photo.facts) for row in earlier]
            else:
                crops = _crops_of(photo, face_detector, options, description)
                _write_crops(crops, photo.key, owners, output)
                done[photo.key] = [row for row, _ in crops]
                for row in earlier:
                    if row.path and row.path not in {now.path for now in done[photo.key]}:
                        (output / row.path).unlink(missing_ok=True)
            visited.append(photo.key)
            options.progress(len(visited), total)
    finally:
        write_rows(table, done)
    return CropReport(face_detector.name, tuple(row for key in visited for row in done[key]), present)


def _with_facts(row: CropRow, facts: PhotoFacts) -> CropRow:
    """Return a row of an earlier call with what photos.csv states now; text that is not given stays."""
    return replace(row, label=facts.label or row.label, person=facts.person or row.person)


def _check_same(photo: _Photo, rows: Sequence[CropRow], output: Path) -> None:
    """Check that the crops in the rows of an earlier call are of this photograph, and not of another of its name."""
    for row in rows:
        if row.path and photo.sha256 not in ("", row.sha256) and (output / row.path).is_file():
            raise InputError(
                f"'{output / row.path}' is the crop of another '{photo.source}': name another folder, rename the new "
                "file, or delete the crop"
            )


def _is_current(photo: _Photo, rows: Sequence[CropRow], settings: str, output: Path) -> bool:
    """Return whether an earlier call cropped this photograph with these settings and its crops exist."""
    return bool(rows) and all(
        row.settings == settings
        and photo.sha256 in ("", row.sha256)
        and row.status != "unreadable"
        and (not row.path or (output / row.path).is_file())
        for row in rows
    )


def _crops_of(
    photo: _Photo, face_detector: PhotoDetector, options: CropOptions, settings: str
) -> list[tuple[CropRow, ImageU8 | None]]:
    """Return the rows of one photograph, each with its crop."""
    plain = CropRow("", photo.source, photo.time_s, photo.facts.label, photo.facts.person)
    plain = replace(plain, settings=settings, sha256=photo.sha256)
    try:
        image = photo.image()
    except InputError as error:
        options.notify(f"{error}: skipped")
        return [(replace(plain, status="unreadable"), None)]
    found = face_detector.detect(image)
    plain = replace(plain, faces=len(found))
    if len(found) == 0:
        return [(replace(plain, status="no face"), None)]
    if options.faces == "single" and len(found) > 1:
        return [(replace(plain, status="several faces"), None)]
    chosen = list(found) if options.faces == "all" else [found[0]]
    crops: list[tuple[CropRow, ImageU8 | None]] = []
    for number, face in enumerate(chosen, start=1):
        name = photo.target.name + (f"-face{number}" if number > 1 else "")
        path = photo.target.with_name(f"{name}.png")
        x0, y0, x1, y1 = (round(float(value), 1) for value in face.xyxy)
        row = replace(plain, path=str(path), x0=x0, y0=y0, x1=x1, y1=y1, score=round(face.score, 4))
        crops.append((row, crop_region(image, face, options.max_side_px)))
    return crops


def crop_region(image: ImageU8, face: Face, max_side_px: int) -> ImageU8:
    """Return the square that the runtime cuts for a face box, in the image's channels, at most `max_side_px` wide."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = square_crop_box(face.xyxy, (width, height), CROP_MARGIN)
    return at_most(np.ascontiguousarray(image[y0:y1, x0:x1]), max_side_px)


def _write_crops(
    crops: Iterable[tuple[CropRow, ImageU8 | None]], key: Key, owners: dict[str, Key], output: Path
) -> None:
    for row, crop in crops:
        if crop is None:
            continue
        owner = owners.setdefault(row.path, key)
        if owner != key:
            raise InputError(f"'{output / row.path}' is the crop of '{owner[0]}' already: name another folder")
        write_atomic(output / row.path, cv2.imencode(".png", crop)[1].tobytes())


@contextmanager
def _open_photos(photos: Path, every_s: float, notify: Notify) -> Iterator[tuple[int | None, Iterator[_Photo]]]:
    """Open the photographs: their number, if it is known, and an iterator of them."""
    if photos.is_dir() or photos.name.lower().endswith(ARCHIVE_SUFFIXES):
        with open_files(photos, notify) as files:
            if not files.images:
                expected = f"{', '.join(IMAGE_SUFFIXES)}, or the path of one video"
                raise InputError(f"photographs '{photos}' contain no image: expected {expected}")
            facts = read_photo_table(files, str(photos), notify)
            stems = Counter(name.with_suffix("") for name in files.images)
            yield (
                len(files.images),
                (
                    _Photo(
                        source=str(PurePosixPath(real_path(photos).name) / name),
                        time_s=None,
                        # Pictures that differ only in their suffix keep it.
                        target=inside(name if stems[name.with_suffix("")] > 1 else name.with_suffix(""), photos),
                        facts=facts.get(name, PhotoFacts()),
                        file=functools.partial(files.read, name),
                    )
                    for name in files.images
                ),
            )
        return
    with open_source(str(photos), notify) as source:
        yield _frame_total(source, every_s), _frames(source, photos, every_s)


def _frames(source: Source, path: Path, every_s: float) -> Iterator[_Photo]:
    """Yield the frames of a video that are at least `every_s` apart, or an image."""
    time_of = presentation_time_s(source)
    due_s = 0.0
    for frame in source:
        time_s = round(time_of(frame), 3)
        if time_s >= due_s:
            due_s = time_s + every_s - 1e-3
            target = path.stem if frame.file else f"{path.stem}-{frame.sequence:06d}"
            yield _Photo(
                source=path.name,
                time_s=None if frame.file else time_s,
                target=PurePosixPath(target),
                facts=PhotoFacts(),
                frame_bgr=frame.image_bgr,
            )


def _frame_total(source: Source, every_s: float) -> int | None:
    if source.frame_count is None or source.fps is None:
        return source.frame_count
    return math.ceil(source.frame_count / max(source.fps * every_s, 1))


def read_rows(table: Path) -> dict[Key, list[CropRow]]:
    """Return the rows of an earlier call by photograph.

    Raises:
        InputError: The file is not a table of crops.
    """
    rows: dict[Key, list[CropRow]] = {}
    if not table.exists():
        return rows
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream)
            for column in fields(CropRow):
                if column.name not in (reader.fieldnames or ()):
                    raise InputError(f"'{table}' lacks the column {column.name}: name a new folder for the crops")
            for values in reader:
                given = {name: value for name, value in values.items() if name and value}
                row = msgspec.convert(given, CropRow, strict=False)
                inside(PurePosixPath(row.path), table)
                rows.setdefault((row.source, row.time_s), []).append(row)
    except (csv.Error, msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InputError(f"'{table}' is damaged: {error}: name a new folder for the crops") from error
    return rows


def write_rows(table: Path, rows: Mapping[Key, Sequence[CropRow]]) -> None:
    """Replace the table by these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [field.name for field in fields(CropRow)], lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows(asdict(row) for group in rows.values() for row in group)
    write_atomic(table, text.getvalue().encode("utf-8", "surrogateescape"))


def inside(name: PurePosixPath, where: Path) -> PurePosixPath:
    """Return a path, checked to stay inside the folder of crops: archives and tables may contain names of any form."""
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"'{where}': the name '{name}' leads out of the folder of crops: rename it")
    return name
