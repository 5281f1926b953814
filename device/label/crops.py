"""Collected crops as the page for labelling shows them, and their files."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from edgekit.contract import Subject
from edgekit.device.sinks.crop_strategies import margin
from edgekit.device.sinks.picture_folder import CROPS_FOLDER
from edgekit.errors import InputError, StorageError
from edgekit.files import write_atomic
from edgekit.typed_json import convert, parse_json

_FILE = re.compile(rf"{CROPS_FOLDER}/(\w[\w.-]*\.png)", re.ASCII)


@dataclass
class CollectedCrop:
    """A collected crop, as its line of crops.jsonl describes it."""

    file: str
    probabilities: dict[str, Annotated[float, Meta(ge=0, le=1)]] = field(default_factory=dict)
    track: str | None = None
    time: str = ""
    label: str = ""
    subject: Subject = "face"

    @property
    def name(self) -> str:
        """File name, which identifies the crop."""
        return self.file.rpartition("/")[2]

    @property
    def group(self) -> str:
        """The track, or the crop itself without tracking: crops of a group get one label."""
        return self.track or self.name


def parse_crop(line: bytes) -> CollectedCrop | None:
    """Return the crop of a line of crops.jsonl, or None if the line is damaged or names a file elsewhere."""
    try:
        crop = convert(parse_json(line, "crop"), CollectedCrop, "crop field")
        # A lone surrogate can neither be sent to the page nor be written to groups.csv.
        "".join((crop.track or "", crop.time, *crop.probabilities)).encode()
    except (InputError, UnicodeEncodeError):
        return None
    return crop if _FILE.fullmatch(crop.file) else None


def group_document(key: str, crops: list[CollectedCrop]) -> dict[str, Any]:
    """Return the JSON document of a group of crops, for the page.

    `probabilities` is the mean over the crops, `margin` is the smallest margin of a crop. `suggestion` is the most
    probable class of the group or of a crop, None without probabilities.
    """
    labels = dict.fromkeys(label for crop in crops for label in crop.probabilities)
    mean = {label: sum(crop.probabilities.get(label, 0.0) for crop in crops) / len(crops) for label in labels}
    return {
        "key": key,
        "margin": round(min(margin(crop.probabilities.values()) for crop in crops), 6),
        "suggestion": _suggestion(mean, crops),
        "probabilities": {label: round(value, 4) for label, value in mean.items()},
        "crops": [
            {
                "name": crop.name,
                "time": crop.time,
                "probabilities": crop.probabilities,
                "suggestion": _suggestion(crop.probabilities, [crop]),
            }
            for crop in sorted(crops, key=lambda crop: margin(crop.probabilities.values()))
        ],
    }


def _suggestion(probabilities: Mapping[str, float], crops: Sequence[CollectedCrop]) -> str | None:
    """Return the most probable class; of equal ones, the label that most of the crops had in the run."""
    counts = Counter(crop.label for crop in crops)
    return max(probabilities, key=lambda label: (probabilities[label], counts[label]), default=None)


def move(source: Path, target: Path) -> bool:
    """Move a file, also to another disk; return False if `source` was deleted before.

    Raises:
        StorageError: The file cannot be moved.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            write_atomic(target, source.read_bytes())
            source.unlink()
    except OSError as error:
        if not source.exists():
            return False
        raise StorageError(f"cannot move '{source}' to '{target.parent}': {error.strerror or error}") from error
    return True
