"""FER+ votes for drawn faces."""

from __future__ import annotations

from pathlib import Path

from edgekit.models.data.ferplus import COLUMNS
from edgekit.models.data.layout import canonical_class


def votes_for(**counts: int) -> list[int]:
    """Return the votes for each column of an image's row."""
    return [counts.get(name, 0) for name in COLUMNS]


def save_votes(faces: Path, path: Path) -> None:
    """Write FER+ votes that agree with the folders of the images."""
    files = [file.relative_to(faces) for file in sorted(faces.rglob("*.png"))]
    votes = [[8 if canonical_class(column) == file.parts[1] else 0 for column in COLUMNS] for file in files]
    rows = [[file.parts[0], str(file), *map(str, counts)] for file, counts in zip(files, votes, strict=True)]
    path.write_text("\n".join(",".join(row) for row in [["Usage", "kaggle_path", *COLUMNS], *rows]))
