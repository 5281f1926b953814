"""CSV tables beside images, as users and spreadsheets write them.

Column names in any case, with or without a byte-order mark, separated by commas or semicolons.
"""

from __future__ import annotations

import csv
import io


def csv_rows(content: bytes) -> list[dict[str, str]]:
    """Return the rows with lower-case column names; a row has only the cells that it is long enough for.

    Raises:
        csv.Error: The table is damaged.
    """
    text = content.decode("utf-8-sig", "replace")
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    # Cells beyond the last column have the column "", missing cells have the value None; both are left out.
    reader = csv.DictReader(io.StringIO(text), restkey="", delimiter=delimiter)
    return [
        {column.strip().lower(): value.strip() for column, value in row.items() if column and isinstance(value, str)}
        for row in reader
    ]
