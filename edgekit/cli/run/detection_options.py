"""Options of `edgekit run` for the detection and tracking of faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from edgekit.cli.options import NumberRange, grouped_options, min_face_option, refuse_unused
from edgekit.device.region import parse_region

if TYPE_CHECKING:
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.pipeline.stream_options import StreamOptions

AUTO: Final = "auto"
_MAX_EVERY = 1000


class _Every(click.IntRange):
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


@dataclass(frozen=True)
class DetectionOptions:
    """Values of the options for detection and tracking; each field has the name of its option's parameter."""

    detect_every: int | Literal["auto"]
    tracker: str
    smooth_s: float
    classify_every: int | Literal["auto"]
    mirror: bool | None
    uncertain_below: float | None
    roi: str | None
    min_face: int
    largest: bool


def _every_option(name: str, text: str) -> Callable[..., Any]:
    kind = _Every(1, _MAX_EVERY)
    return click.option(name, type=kind, default=AUTO, show_default=True, metavar="N|auto", help=text)


_OPTIONS = (
    _every_option(
        "--detect-every",
        "Run the detector on every Nth frame, and track faces on the frames between. auto: the interval depends on "
        "the image.",
    ),
    click.option(
        "--tracker",
        default="flow",
        show_default=True,
        metavar="NAME",
        help="Tracker for the frames between two detections.",
    ),
    click.option(
        "--smooth",
        "smooth_s",
        type=NumberRange(0, 60),
        default=0.4,
        show_default=True,
        metavar="SECONDS",
        help="Time constant for smoothing a tracked face's probabilities; 0: no smoothing.",
    ),
    _every_option(
        "--classify-every",
        "Classify a tracked face in every Nth frame. auto: classify a face that is new, changed or undecided, and "
        "every face after 0.2 s.",
    ),
    click.option(
        "--mirror/--no-mirror",
        default=None,
        help="Classify each crop and its mirror image, and average the probabilities. Takes twice the time. "
        "Default: only for pictures, with a detector.",
    ),
    click.option(
        "--uncertain-below",
        type=NumberRange(0, 1),
        metavar="P",
        help="Smallest probability of a label. If the probability is smaller, the label is 'uncertain'. Default: "
        "the model's threshold.",
    ),
    click.option(
        "--roi",
        metavar="X,Y,W,H",
        help="Use only this region of the frame: its left, top, width and height. Give four fractions of the frame, "
        "or four numbers of pixels.",
    ),
    min_face_option,
    click.option(
        "--largest/--every-face",
        default=False,
        show_default=True,
        help="Keep only the largest face of each frame, or keep every face.",
    ),
)


# Adds these options to a command, which gets their values as the parameter `detection`.
add_detection_options = grouped_options("detection", DetectionOptions, _OPTIONS)


def check_detection_options(
    detection: DetectionOptions, detector_name: str | None, detector_size_px: int | None
) -> None:
    """Check the options before anything slow is imported.

    Raises:
        click.UsageError: An option needs a detector, or smoothing.
    """
    need_detector = {
        "--detector-size": detector_size_px is not None,
        "--detect-every": detection.detect_every != AUTO,
        "--min-face": detection.min_face > 0,
        "--largest": detection.largest,
    }
    if detector_name == "none" and (given := [name for name, is_given in need_detector.items() if is_given]):
        raise click.UsageError(f"{given[0]} needs a detector; with --detector none every frame is a face")
    if detection.smooth_s == 0 and detection.classify_every not in (AUTO, 1):
        raise click.UsageError("--classify-every needs smoothing, not --smooth 0: leave out one")


def stream_values(detection: DetectionOptions) -> dict[str, Any]:
    """Return the options as arguments of `StreamOptions`.

    Raises:
        InputError: --roi is not a region.
    """
    return {
        "detect_every": detection.detect_every,
        "tracker": detection.tracker,
        "smooth_s": detection.smooth_s,
        "classify_every": detection.classify_every,
        "mirror": detection.mirror,
        "uncertain_below": detection.uncertain_below,
        "region": None if detection.roi is None else parse_region(detection.roi),
        "min_face_px": detection.min_face,
        "largest_only": detection.largest,
    }


# Names of fields of `StreamOptions` that are not those of the options' parameters.
_PARAMETERS = {"detector_size_px": "detector_size", "min_face_px": "min_face", "largest_only": "largest"}


def open_stream(options: StreamOptions, notify: Callable[[str], None]) -> Stream:
    """Return the stream of a run.

    Raises:
        click.UsageError: An option has no effect with the model.
        EdgekitError: As `Stream`.
    """
    from edgekit.device.pipeline.stream import Stream, UnusedOptionsError

    try:
        return Stream(options, notify)
    except UnusedOptionsError as error:
        names = [_PARAMETERS.get(name, name) for name in error.names]
        reason = f"has no effect with model '{options.model}', which classifies the whole image"
        refuse_unused(click.get_current_context(), names, reason)
        raise
