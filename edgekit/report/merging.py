"""Several boards in one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from edgekit.errors import InputError
from edgekit.report.schema import SCHEMA, check


def merge(documents: Sequence[Mapping[str, Any]], labels: Sequence[str | None] | None = None) -> dict[str, Any]:
    """Return one document with the boards of several, in their order, as `edgekit bench --host A --host B` makes.

    Args:
        documents: Benchmark documents as `schema.parse_document` returns them, so checked already.
        labels: What to call the board of each document; None leaves what it is called. A document with several boards
            takes no label.

    Raises:
        InputError: There is none, a label is given to several boards, or together they are too many.
    """
    if not documents:
        raise InputError("no report to merge: give at least one")
    boards = []
    for index, document in enumerate(documents):
        label = labels[index] if labels else None
        if label is not None and len(document["boards"]) != 1:
            raise InputError(f"label '{label}' is for one board, the report has {len(document['boards'])}")
        boards += [dict(entry) if label is None else {**entry, "label": label} for entry in document["boards"]]
    merged = {"schema": SCHEMA, "created_utc": datetime.now(UTC).isoformat(timespec="seconds"), "boards": boards}
    check(merged, "the merged report")
    return merged
