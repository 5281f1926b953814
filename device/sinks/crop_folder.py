"""Crops for labelling, saved while a run goes on: PNG files and one JSON line for each.

    DIR/crops/RUN-00001.png     the part of the frame that the classifier saw, before its resizing
    DIR/crops.jsonl             file, time, label, probabilities, track, score, source

`edgekit.device.label` shows them in a browser and sorts them into class folders.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from edgekit.device.accounting import DISK_TOO_SLOW, Account, loss_reason
from edgekit.device.sinks.disk_reserve import DISK_RESERVE, never_low
from edgekit.device.sinks.rotation import Outage
from edgekit.errors import InputError, StorageError
from edgekit.files import append_line, remove_folder_leftovers, write_atomic
from edgekit.preprocess import ImageU8

CROPS_FOLDER = "crops"
CROPS_FILE = "crops.jsonl"
DEFAULT_MAX_CROPS = 2000
DEFAULT_MAX_MB = 200


@dataclass(frozen=True)
class Crop:
    """Pixels to save, uint8 (H, W) gray or (H, W, 3) B, G, R, and the JSON document about them."""

    image: ImageU8
    document: dict[str, Any]


class CropFolder:
    """Appends crops to a folder within limits; a disk error or a limit is reported once.

    Attributes:
        saved: Number of crops that this object has saved.
        account: Counts the crops that were chosen; `save` counts those that it saves or that exceed the limits.
        reason: Why the latest crop could not be saved, for `Account.drop`.
    """

    def __init__(
        self,
        folder: Path,
        source_name: str,
        notify: Callable[[str], None],
        *,
        max_crops: int = DEFAULT_MAX_CROPS,
        max_bytes: int = DEFAULT_MAX_MB * 10**6,
        is_disk_low: Callable[[], bool] = never_low,
    ) -> None:
        """Continue `folder`; crops that it already holds count towards the limits.

        While `is_disk_low` returns true, crops are dropped.

        Raises:
            InputError: `folder` is a file.
        """
        crops = folder / CROPS_FOLDER
        for place in (folder, crops):
            if place.exists() and not place.is_dir():
                raise InputError(f"'{place}' is a file: name a folder for the crops")
        self.folder = folder
        self.saved = 0
        self.account = Account("collect")
        self.reason = DISK_TOO_SLOW
        self._source_name = source_name
        self._notify = notify
        self._outage = Outage(f"collecting to '{folder}'", notify)
        self._max_crops = max_crops
        self._max_bytes = max_bytes
        self._is_disk_low = is_disk_low
        self._full = False
        # Unique across runs, also on a board whose clock is wrong.
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._crops = self._bytes = 0
        # Those of a power cut would count as crops.
        remove_folder_leftovers(crops, ".png")
        self._count()

    def save(self, crop: Crop) -> bool:
        """Save a crop and its JSON line, or neither; return False if the disk failed and a retry may succeed."""
        encoded = cv2.imencode(".png", crop.image)[1].tobytes()
        track = crop.document["track"]
        name = f"{CROPS_FOLDER}/{self._run}-{self.saved + 1:05}.png"
        document = {"file": name, **crop.document, "source": self._source_name}
        document["track"] = None if track is None else f"{self._run}-{track}"
        line = (json.dumps(document, allow_nan=False) + "\n").encode()
        if self._is_full(len(encoded)):
            self.account.drop("folder full")
            return True
        if self._is_disk_low():
            self.account.drop(DISK_RESERVE)
            return True
        path = self.folder / name
        try:
            write_atomic(path, encoded)
            try:
                append_line(self.folder / CROPS_FILE, line)
            except StorageError:
                path.unlink(missing_ok=True)
                raise
        except (StorageError, InputError, OSError) as error:
            self.reason = loss_reason(error)
            self._outage.begin(str(error))
            return False
        self.reason = DISK_TOO_SLOW
        lost = self.account.lost
        self._outage.end(f", {lost} crops were left out" if lost else "")
        self.account.write()
        self.saved += 1
        self._crops += 1
        self._bytes += len(encoded)
        return True

    def _count(self) -> None:
        """Count the crops that wait for labelling, and their bytes."""
        sizes = []
        for path in (self.folder / CROPS_FOLDER).glob("*.png"):
            with suppress(OSError):  # labelled in this moment, or damaged
                sizes.append(path.stat().st_size)
        self._crops = len(sizes)
        self._bytes = sum(sizes)

    def _exceeds_limits(self, size: int) -> bool:
        return self._crops >= self._max_crops or self._bytes + size > self._max_bytes

    def _is_full(self, size: int) -> bool:
        if not self._full and self._exceeds_limits(size):
            # Crops may have been labelled or deleted since they were counted.
            with suppress(OSError):
                self._count()
        if not self._full and self._exceeds_limits(size):
            self._full = True
            self._notify(
                f"'{self.folder}' is full ({self._crops} crops, {self._bytes / 1e6:.1f} MB): no more crops are "
                "collected; label or delete some and start again, or raise --collect-max and --collect-max-mb"
            )
        return self._full
