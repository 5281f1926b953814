"""The options of `edgekit.stream` and of the source and the faces of `edgekit run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.device.region import MAX_INPUT_SIZE_PX, MIN_INPUT_SIZE_PX, Region, parse_region
from edgekit.device.sources.settings import CAMERAS, CameraSettings, parse_camera
from edgekit.device.zones import Zone, check_zones, parse_zone
from edgekit.errors import InputError, warn
from edgekit.options import Options, declared_options, option

# Without a detector, these fields have no effect.
_NEED_DETECTOR = ("detector_size_px", "detect_every", "min_face_px", "largest_only")
# Bounds of fields that are no options of the command line.
_RANGES = {
    "detect_every": (1, 1000),
    "classify_every": (1, 1000),
    "detector_size_px": (MIN_INPUT_SIZE_PX, MAX_INPUT_SIZE_PX),
}


@dataclass(frozen=True, kw_only=True)
class StreamOptions(Options):
    """The options of a `Stream`.

    Attributes:
        source: An image, folder, glob pattern, video file, stream address or "demo", see `sources.open_source`.
        camera: A camera, see `sources.open_camera`. Exactly one of `source` and `camera` is given.
        camera_settings: Size, frame rate and controls of the camera. The stream sets the fields that depend on the
            detector (`detector_px`, `min_face_px`, `region` and `detects`).
        max_frames: Largest number of results; None: no limit.
        realtime: Play a video file at its own frame rate.
        repeat: Begin a recording again at its end, until the stream is stopped.
        model: A shipped model's name, or the path of an .onnx or .ncnn file.
        detector: "yunet", "haar", "none" (every frame is one face), YuNet's .onnx file, or a registered name. Default:
            "yunet", or "none" for a model that classifies whole images.
        detector_size_px: Longer side of the detector's input; None: 320, or what `min_face_px` requires.
        every_frame: Detect and classify in every frame.
        detect_every: Run the detector on every Nth frame, or when the image requires it ("auto").
        classify_every: Classify a tracked face in every Nth frame, or when the image requires it ("auto", see
            `classification_schedule.choose`). Without smoothing, faces are classified in every frame.
        tracker: Name of the tracker for the frames between two detections.
        smooth_s: Time constant of the smoothing of probabilities, in seconds; 0: no smoothing.
        mirror: Classify each face's crop and its mirror image, and use the mean probabilities; None: for pictures only.
        uncertain_below: A face or image whose largest probability is lower has the label "uncertain", and so has a face
            whose crop is nearly black, plain or blurred. 0: neither; None: as `Contract.uncertain_below`.
        region: The part of the frame to search or, for whole images, to classify; None: the whole frame.
        zones: Return only faces in these zones, or classify each zone by itself instead of the region.
        min_face_px: Smallest face, in pixels of the frame; 0: no limit.
        largest_only: Keep only the largest face of each frame.
        threads: Threads within each net and OpenCV; None: chosen for the machine.
        threaded: Whether each stage has a thread; None: true if there is more than one processor.
        notify: Called with each warning, possibly from another thread.
    """

    source: str | Path | None = option(
        "--source",
        "Image, folder, 'pattern*.jpg', video file, rtsp:// or http:// stream, or `demo`.",
        metavar="URI",
        parse=str,  # a Path would have one slash in http://
        excludes="--camera",
        section="Source",
        main=True,
    )
    camera: str | None = option(
        "--camera",
        f"Camera: {CAMERAS}. Without a value: auto.",
        metavar="[CAMERA]",
        parse=parse_camera,
        bare="auto",
        section="Source",
        main=True,
    )
    camera_settings: CameraSettings = CameraSettings()  # noqa: RUF009 - frozen
    max_frames: int | None = option(
        "--max-frames", "Stop after N frames.", least=1, most=2**31, section="Source", main=True
    )
    realtime: bool = option(
        "--realtime",
        "Play a video file at its own frame rate, instead of as fast as possible. `demo` then repeats until Ctrl-C.",
        default=False,
        needs="--source",
        section="Source",
        main=True,
    )
    repeat: bool = False
    model: str | Path = option(
        "--model",
        "Classifier: an .onnx or .ncnn file, `default`, `fer2013` or `distilled`.",
        default="default",
        metavar="MODEL",
        section="Faces",
        main=True,
    )
    detector: Literal["yunet", "haar", "none"] | str | Path | None = option(
        "--detector",
        "Face detector: yunet (its file is downloaded once), haar, none (each frame is one face), or the path of "
        "YuNet's .onnx file. Default: yunet, or none for a model of whole images.",
        metavar="NAME|FILE",
        section="Faces",
        main=True,
    )
    detector_size_px: int | None = None
    every_frame: bool = option(
        "--every-frame",
        "Detect and classify in every frame, even if nothing has changed.",
        default=False,
        section="Faces",
    )
    detect_every: int | Literal["auto"] = "auto"
    classify_every: int | Literal["auto"] = "auto"
    tracker: str = "flow"
    smooth_s: float = option(
        "--smooth",
        "Time constant for smoothing a tracked face's probabilities; 0: no smoothing.",
        default=0.4,
        metavar="SECONDS",
        least=0,
        most=60,
        section="Faces",
    )
    mirror: bool | None = None
    uncertain_below: float | None = option(
        "--uncertain-below",
        "Give the label 'uncertain' if the largest probability is smaller than P (0 to 1). Default: the model's own "
        "threshold.",
        metavar="P",
        least=0,
        most=1,
        section="Faces",
    )
    region: Region | None = option(
        "--roi",
        "Use only this region of the frame: its left, top, width and height. Give four fractions of the frame, or four "
        "numbers of pixels.",
        metavar="X,Y,W,H",
        parse=parse_region,
        section="Faces",
        main=True,
    )
    zones: Sequence[Zone] = option(
        "--zone",
        "Use only this polygon of the frame: a name, and the corners as fractions of the frame. A face belongs to the "
        "zone in which its centre lies. A model of whole images classifies each zone. Repeatable.",
        default=(),
        metavar="NAME=X,Y,…",
        parse=parse_zone,
        several=True,
        excludes="--teach",
        section="Faces",
    )
    min_face_px: int = option(
        "--min-face",
        "Find faces from this size on, in pixels of the frame, and discard smaller ones. Smaller values find more "
        "faces and take more time. 0: the detector scales the frame to a longer side of 320 pixels.",
        default=0,
        metavar="PX",
        least=0,
        most=100_000,
        section="Faces",
        main=True,
    )
    largest_only: bool = option(
        "--largest", "Keep only the largest face of each frame.", default=False, section="Faces"
    )
    threads: int | None = option(
        "--threads",
        "CPU threads of each net. Default: chosen for this machine.",
        least=1,
        most=1024,
        section="Speed",
    )
    threaded: bool | None = None
    notify: Callable[[str], None] = warn

    def __post_init__(self) -> None:
        """Check values and combinations that the declarations of the options do not check."""
        super().__post_init__()
        check_zones(self.zones)
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            is_number = value is not None and value != "auto"
            if is_number and not least <= value <= most:
                raise InputError(f"{name} is {value}: expected {least} to {most}")
        needs_detector = self.changed(_NEED_DETECTOR)  # flags, such as --min-face
        if needs_detector and self.detector == "none":
            raise InputError(f"{needs_detector[0]} needs a detector; with detector none every frame is a face")

    def changed(self, fields: tuple[str, ...]) -> list[str]:
        """Return the names of the given fields whose value is not the default, as messages name them.

        This is the flag of the command line or, for a field without a flag, the name of the field.
        """
        flags = {name: declared.flag for name, declared in declared_options(StreamOptions).items()}
        # The attributes of the class are the defaults.
        changed = [name for name in fields if getattr(self, name) != getattr(StreamOptions, name)]
        return [flags.get(name, name) for name in changed]
