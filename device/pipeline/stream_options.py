"""The options of `edgekit.stream` and `edgekit run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.device.pipeline.classification_schedule import ClassifyEvery
from edgekit.device.pipeline.smoothing import DEFAULT_SMOOTHING_S
from edgekit.device.region import MAX_INPUT_SIZE_PX, MIN_INPUT_SIZE_PX, Region
from edgekit.device.sources.settings import CameraSettings
from edgekit.errors import InputError


@dataclass(frozen=True)
class StreamOptions:
    """The options of a `Stream`.

    Attributes:
        source: An image, folder, glob pattern, video file, stream address or "demo", see `sources.open_source`.
        camera: A camera, see `sources.open_camera`. Exactly one of `source` and `camera` is given.
        camera_settings: Size, frame rate and controls of the camera. The stream sets the fields that depend on the
            detector (`detector_px`, `min_face_px`, `region` and `detects`).
        realtime: Play a video file at its own frame rate.
        model: A shipped model's name, or the path of an .onnx or .ncnn file.
        detector: "yunet", "haar", "none" (every frame is one face) or a registered name; None: "yunet", or "none" for a
            model that classifies whole images.
        detector_model: YuNet's .onnx file; None: downloaded once into the user's cache.
        detector_size_px: Longer side of the detector's input; None: 320, or what `min_face_px` requires.
        detect_every: Run the detector on every Nth frame, or when the image requires it ("auto").
        tracker: Name of the tracker for the frames between two detections.
        smooth_s: Time constant of the smoothing of probabilities, in seconds; 0: no smoothing.
        classify_every: Classify a tracked face in every Nth frame, or when the image requires it ("auto", see
            `classification_schedule.choose`). Without smoothing, faces are classified in every frame.
        mirror: Classify each face's crop and its mirror image, and use the mean probabilities; None: for pictures only.
        uncertain_below: A face or image whose largest probability is lower has the label "uncertain", and so has a face
            whose crop is nearly black, plain or blurred. 0: neither; None: as `Contract.uncertain_below`.
        region: The part of the frame to search or, for whole images, to classify; None: the whole frame.
        min_face_px: Smallest face, in pixels of the frame; 0: no limit.
        largest_only: Keep only the largest face of each frame.
        threads: Threads within each net and OpenCV; None: chosen for the machine.
        threaded: Whether each stage has a thread; None: true if there is more than one processor.
        max_frames: Largest number of results; None: no limit.
    """

    source: str | Path | None = None
    camera: str | None = None
    camera_settings: CameraSettings = CameraSettings()  # noqa: RUF009 - frozen
    realtime: bool = False
    model: str | Path = "default"
    detector: str | None = None
    detector_model: Path | None = None
    detector_size_px: int | None = None
    detect_every: int | Literal["auto"] = "auto"
    tracker: str = "flow"
    smooth_s: float = DEFAULT_SMOOTHING_S
    classify_every: ClassifyEvery = "auto"
    mirror: bool | None = None
    uncertain_below: float | None = None
    region: Region | None = None
    min_face_px: int = 0
    largest_only: bool = False
    threads: int | None = None
    threaded: bool | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and value != "auto" and not least <= value <= most:
                raise InputError(f"{name} is {value}: expected {least} to {most}")


# Those of the options of `edgekit run`.
_RANGES: dict[str, tuple[float, float]] = {
    "detector_size_px": (MIN_INPUT_SIZE_PX, MAX_INPUT_SIZE_PX),
    "detect_every": (1, 1000),
    "smooth_s": (0, 60),
    "classify_every": (1, 1000),
    "uncertain_below": (0, 1),
    "min_face_px": (0, 100_000),
    "threads": (1, 1024),
    "max_frames": (1, 2**31),
}
