"""The sink of `--collect`: PNG files and one JSON line for each."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import cv2

from edgekit.device.detections import FrameResult, crop_boxes
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.crop_strategies import Candidate, Crop, Strategy
from edgekit.device.sinks.disk_reserve import PICTURES
from edgekit.device.sinks.picture_folder import CROPS_FILE, CROPS_FOLDER, PictureFolder
from edgekit.device.sinks.writer import Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.files import append_line

# Crops of a live source that wait for the disk.
_MOST_CROPS = 32
_MOST_FILES = 10_000


class CollectSink(Writer[Crop]):
    """Saves the crops that a strategy chooses; none are deleted, a full folder takes no more.

    Attributes:
        folder: The folder.
    """

    def __init__(self, strategy: Strategy, folder: Path, run: RunContext) -> None:
        """Continue `folder`; the crops that wait in it for labelling count towards its limits.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file: name a folder for the crops")
        self.folder = folder
        self._strategy = strategy
        self._run = run
        self._time_s = presentation_time_s(run.source)
        rules = WriterRules(
            what=f"collecting to '{folder}'",
            most=_MOST_CROPS,
            slow="disk too slow",
            holds=True,
            pauses_s=(5.0,),
            reserve=run.reserve(folder, PICTURES),
        )
        crops = _Crops(folder, run.source.name, round(run.rules.pictures_max_mb * 1e6))
        super().__init__(crops, rules, run.account("collect"), run.shutdown, run.notify, threaded=run.source.live)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Pass the frame's faces to the strategy and save the crops it returns."""
        self.check()
        landmarks, tracks = result.faces.landmarks_xy, result.faces.tracks
        contract = self._run.contract_in_use
        boxes = crop_boxes(result.faces, frame.size_wh, contract.crop.margin)
        candidates = [
            Candidate(
                frame,
                face,
                box,
                landmarks_xy=None if landmarks is None else landmarks[index],
                track=None if tracks is None else tracks[index],
                contract=contract,
                clock_synchronised=result.clock_synchronised,
            )
            for index, (face, box) in enumerate(zip(result.faces, boxes, strict=True))
        ]
        for crop in self._strategy.choose(candidates, self._time_s(frame)):
            self.put(crop)

    def end(self) -> None:
        """Save what the strategy still holds."""
        for crop in self._strategy.finish():
            self.put(crop)
        super().end()


class _Crops:
    """Target of a `CollectSink`: writes a crop and its JSON line, or neither."""

    def __init__(self, folder: Path, source_name: str, most_bytes: int) -> None:
        self._folder = folder
        self._source_name = source_name
        self._pictures = PictureFolder(folder / CROPS_FOLDER, ".png", most_files=_MOST_FILES, most_bytes=most_bytes)
        # Unique across runs, also on a board whose clock is wrong.
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._saved = 0

    def write(self, items: Sequence[Crop]) -> int:
        """Write the only crop."""
        (crop,) = items
        name = f"{self._run}-{self._saved + 1:05}.png"
        track = crop.document["track"]
        document = {"file": f"{CROPS_FOLDER}/{name}", **crop.document, "source": self._source_name}
        document["track"] = None if track is None else f"{self._run}-{track}"
        line = (json.dumps(document, allow_nan=False) + "\n").encode()
        self._pictures.store(name, cv2.imencode(".png", crop.image)[1].tobytes())
        try:
            append_line(self._folder / CROPS_FILE, line)
        except StorageError:
            self._pictures.remove(name)
            raise
        self._saved += 1
        return 1

    def close(self) -> int:
        """Do nothing."""
        return 0
