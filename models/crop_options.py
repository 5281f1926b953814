"""Options of `edgekit.crop_photos`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.options import Options, option
from edgekit.shared_options import detector, min_face_px, threads


@dataclass(frozen=True)
class CropOptions(Options):
    """Options of `edgekit.crop_photos`.

    Attributes:
        photos: A folder or a .tar, .tar.gz or .tgz archive of images, with class folders or without; a video; an image.
        notify: Called with messages for the user.
        progress: Called with (photographs done, photographs in total or None).
    """

    title = "Crops"
    photos: str | Path
    output: str | Path = option("--output", "Folder for the crops.", short="-o", metavar="DIR", required=True)
    _: KW_ONLY
    faces: Literal["largest", "all", "single"] = option(
        "--faces",
        "Faces to crop from each photograph. single: crop only photographs with exactly one face.",
        default="largest",
    )
    detector: str | Path | None = detector()
    min_face_px: int = min_face_px()
    max_side_px: int = option(
        "--max-side",
        "Longest side of a crop. Larger crops are reduced.",
        default=256,
        metavar="PX",
        least=8,
        most=10_000,
    )
    every_s: float = option(
        "--every", "Time between two frames of a video.", default=1.0, metavar="SECONDS", least=0.001, most=1e6
    )
    threads: int | None = threads()
    notify: Notify = ignore_message
    progress: Progress = lambda _done, _total: None
