"""Identity of data: a finished measurement is used again only for the same data."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from edgekit.files import sha256_of

# Files whose content counts in a folder; of others, such as images, only name and size do.
_TABLES = (".csv", ".json", ".jsonl", ".txt")


@functools.cache
def data_identity(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of the names and sizes of all files and the content of tables."""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for file in (Path(folder, name) for name in sorted(names)):
            if file.is_file():
                content = sha256_of(file) if file.suffix.lower() in _TABLES else file.stat().st_size
                digest.update(os.fsencode(f"{file.relative_to(path)} {content}\n"))
    return digest.hexdigest()
