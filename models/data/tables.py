"""CSV tables beside images, as users write them: column names in any case, with or without a byte-order mark."""

from __future__ import annotations

import csv
import io


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
