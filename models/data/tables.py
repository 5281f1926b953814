"""CSV tables beside images, as users write them: column names in any case, with or without a byte-order mark."""

from __future__ import annotations

import csv
import io
from collections.abc import Set
from pathlib import PurePosixPath


def csv_rows(content: bytes) -> list[dict[str, str]]:
    """Return the rows with lower-case column names; a row has only the cells that it is long enough for.

    Raises:
        csv.Error: The table is damaged.
    """
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace")), restkey="")
    return [
        {column.strip().lower(): value.strip() for column, value in row.items() if column and isinstance(value, str)}
        for row in reader
    ]


def listed_image(text: str, folder: PurePosixPath, images: Set[PurePosixPath]) -> PurePosixPath | None:
    """Return the image that a path in a table means, or None; `folder` is the table's folder.

    The path is relative to this folder, or begins with the folder's own name.
    """
    path = PurePosixPath(text)
    # A table that was written beside its folder starts each path with the folder's name.
    candidates = (folder / path, folder.parent / path, folder / PurePosixPath(*path.parts[1:]))
    return next((name for name in candidates if name in images), None)
