"""How `edgekit run` finds and follows faces: the options, and the face_tracker made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import NumberRange, grouped_options

if TYPE_CHECKING:
    from edgekit.device.detection import Detector
    from edgekit.device.region import Region
    from edgekit.device.sources import Source
    from edgekit.device.tracking.face_tracker import FaceTracker

AUTO = "auto"
_MAX_EVERY = 1000


class _Every(click.IntRange):
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return AUTO if value == AUTO else super().convert(value, param, ctx)


@dataclass(frozen=True)
class DetectionOptions:
    """The values of all these options, under their parameters' names."""

    detect_every: int | str
    tracker: str
    smooth_s: float
    roi: str | None
    min_face: int
    largest: bool
    single_thread: bool


_OPTIONS = (
    click.option(
        "--detect-every",
        type=_Every(1, _MAX_EVERY),
        default=AUTO,
        show_default=True,
        metavar="N|auto",
        help="Search every Nth frame, follow faces between; auto: as the picture asks for.",
    ),
    click.option(
        "--tracker", default="flow", show_default=True, metavar="NAME", help="What follows faces between searches."
    ),
    click.option(
        "--smooth",
        "smooth_s",
        type=NumberRange(0, 60),
        default=0.4,
        show_default=True,
        metavar="SECONDS",
        help="Smooth a followed face's probabilities over so long; 0: not at all.",
    ),
    click.option("--roi", metavar="X,Y,W,H", help="Look at this part of the frame only; pixels, or shares up to 1."),
    click.option(
        "--min-face",
        type=click.IntRange(0, 100_000),
        default=0,
        metavar="PX",
        help="Leave out smaller faces; also chooses --detector-size if that is not given.",
    ),
    click.option(
        "--largest/--every-face", default=False, show_default=True, help="Take a frame's largest face, or all of them."
    ),
    click.option(
        "--single-thread/--threaded",
        default=False,
        help="All stages take turns in one thread, for debugging: the results of files are the same.",
    ),
)


# Add all these options to a command, which gets their values as one `detection`.
detection_options = grouped_options("detection", DetectionOptions, _OPTIONS)


def check_detection_options(detection: DetectionOptions, detector_name: str) -> None:
    """Look at the options before anything heavy is loaded.

    Raises:
        click.UsageError: One has no use without a detector.
    """
    if detector_name == "none" and detection.detect_every != AUTO:
        raise click.UsageError("--detect-every needs a detector; with --detector none every frame is a face")
    if detector_name == "none" and detection.min_face:
        raise click.UsageError("--min-face needs a detector; with --detector none every frame is a face")


def chooses_input_size(detection: DetectionOptions) -> bool:
    """Return whether the detector's picture is as large as --min-face needs: no --detector-size is given."""
    context = click.get_current_context(silent=True)
    size_given = context is not None and context.get_parameter_source("detector_size") not in (
        None,
        click.core.ParameterSource.DEFAULT,
    )
    return detection.min_face > 0 and not size_given


def chosen_region(detection: DetectionOptions) -> Region | None:
    """Return what --roi names; None for the whole frame.

    Raises:
        InputError: It is no region.
    """
    from edgekit.device.region import parse_region

    return parse_region(detection.roi) if detection.roi is not None else None


def create_face_tracker(
    detection: DetectionOptions, detector: Detector, source: Source, region: Region | None
) -> FaceTracker:
    """Return the face_tracker for a source; pictures that are no sequence are searched one by one.

    Raises:
        InputError: Nobody has registered the tracker.
    """
    from edgekit.device.registry import find
    from edgekit.device.sources import presentation_time_s
    from edgekit.device.tracking.detection_schedule import Adaptive, Every
    from edgekit.device.tracking.face_tracker import FaceTracker

    is_sequence = source.live or source.fps is not None or detection.detect_every != AUTO
    follows = detector.name != "none" and is_sequence
    schedule = Adaptive() if detection.detect_every == AUTO else Every(int(detection.detect_every))
    return FaceTracker(
        detector,
        schedule if follows else None,
        follow=find("tracker", detection.tracker)() if follows else None,
        region=region,
        min_face_px=detection.min_face,
        choose_input_size=chooses_input_size(detection),
        largest_only=detection.largest,
        presentation_time_s=presentation_time_s(source),
    )
