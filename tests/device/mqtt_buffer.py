"""The file in which a run buffers its MQTT events."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def waiting_events(path: Path, folder: Path) -> int:
    """Return the number of events in a copy of the file, which its run has locked; 0 while it is being written."""
    for suffix in ("", "-wal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            (folder / f"copy.sqlite{suffix}").write_bytes(part.read_bytes())
    try:
        with closing(sqlite3.connect(folder / "copy.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM waiting").fetchone()[0])
    except sqlite3.Error:
        return 0
