"""Reads the event buffer of edgekit 0.2, an SQLite file."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from edgekit.device.sinks.mqtt.settings import is_topic

_HEADER = b"SQLite format 3\0"


def is_sqlite(stream: io.FileIO) -> bool:
    """Return whether a file at its beginning is an SQLite file; leaves the position unchanged."""
    start = stream.tell()
    header = stream.read(len(_HEADER))
    stream.seek(start)
    return header == _HEADER


def read_sqlite(path: Path) -> tuple[list[tuple[int, str, str]], int]:
    """Return (number, topic, payload) of each readable row in order, and the number of damaged rows or parts."""
    rows: dict[int, tuple[str, str] | None] = {}
    broken = 0
    with closing(sqlite3.connect(path)) as database:
        database.text_factory = bytes
        # A damaged page ends a scan. A second one, from the end, reaches the rows behind it.
        for order in ("ASC", "DESC"):
            try:
                for number, topic, payload in database.execute(
                    f"SELECT id, topic, payload FROM waiting ORDER BY id {order}"  # noqa: S608 - constants
                ):
                    rows[number] = _checked(topic, payload)
            except (sqlite3.Error, UnicodeDecodeError):
                # The message of an error may contain damaged text.
                broken = 1
    readable = [(number, *row) for number, row in sorted(rows.items()) if row is not None]
    return readable, len(rows) - len(readable) + broken


def _checked(topic: Any, payload: Any) -> tuple[str, str] | None:
    try:
        name, text = topic.decode(), payload.decode()
        json.loads(text)
    except (AttributeError, ValueError):
        return None
    return (name, text) if is_topic(name) else None
