"""`crops.csv`: one row for each crop that `edgekit data crop` made, and for each photograph without one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import msgspec

from edgekit.errors import InputError
from edgekit.files import write_atomic

CROP_TABLE = "crops.csv"
Status: TypeAlias = Literal["crop", "no face", "several faces", "unreadable"]
# A photograph: its source, and the time of a video's frame.
Key: TypeAlias = tuple[str, float | None]


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
