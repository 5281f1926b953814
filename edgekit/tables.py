"""CSV tables beside images, as users and spreadsheets write them.

Column names in any case, with or without a byte-order mark, separated by commas or semicolons.
"""

from __future__ import annotations

import csv
import io


def csv_rows(content: bytes) -> list[dict[str, str]]:
    """Return each row as a dictionary with lower-case column names; missing and surplus cells are left out.

    Raises:
        csv.Error: The table is damaged.
    """
    text = content.decode("utf-8-sig", "replace")
    header = text.partition("\n")[0]
    # Spreadsheet programs write semicolons where the comma is the decimal sign.
    delimiter = ";" if ";" in header and "," not in header else ","
    rows = []
    # Surplus cells have the column "", missing cells have the value None.
    for cells in csv.DictReader(io.StringIO(text), restkey="", delimiter=delimiter):
        given = {column: value for column, value in cells.items() if column and isinstance(value, str)}
        rows.append({column.strip().lower(): value.strip() for column, value in given.items()})
    return rows
