"""Localizers, which return the boxes that a model classifies: `FaceTracker` for faces, `WholeImage` for whole images.

The faces of a frame come from the detector on scheduled frames, and from a tracker on the frames between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np

from edgekit.device.detection import Detector, Sizable
from edgekit.device.detections import Detections, Track
from edgekit.device.frame import Frame
from edgekit.device.region import Region, detector_input_px, scaled_input_px
from edgekit.device.stages import StageTimer
from edgekit.device.tracking.detection_schedule import SceneCuts, Schedule, TrackingState, coarse_image
from edgekit.device.tracking.optical_flow import Tracker, move_boxes
from edgekit.device.tracking.tracks import TrackManager
from edgekit.device.zones import Zone, check_sizes
from edgekit.preprocess import FloatArray, ImageU8

# Longer side of the image for tracking: larger images cost more and track no better.
_FLOW_SIDE_PX = 320
# With `largest_only`, another face replaces the chosen one when its area is larger by this factor.
_CLEARLY_LARGER = 1.2
_NO_ZONE = -1


@dataclass(eq=False)
class FaceTracker:
    """Detects and tracks the faces of frames, which are given in their order.

    Only `set_load_level` may be called while another thread uses the object.

    Attributes:
        detector: Finds the faces of an image.
        schedule: On which frames the detector runs; None: on every frame, and faces get no track ids.
        tracker: Moves boxes on the frames between. At a cut of a film, all faces get new ids.
        region: The part of the frame to search; default: the whole frame.
        min_face_px: Smallest mean side of a box, in pixels of the frame; smaller faces are discarded.
        choose_input_size: Set the detector's input size from `min_face_px` and the size of each frame.
        largest_only: Keep only the largest face of each frame.
        presentation_time_s: Returns the time of a frame in seconds, see `frame.presentation_time_s`.
        zones: Return only faces in one of these zones; the others are tracked, so that they keep their ids.
    """

    detector: Detector
    schedule: Schedule | None
    tracker: Tracker = move_boxes
    region: Region | None = None
    min_face_px: int = 0
    choose_input_size: bool = False
    largest_only: bool = False
    presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s
    zones: Sequence[Zone] = ()

    def __post_init__(self) -> None:
        # See `set_load_level`.
        self._detect_every_at_least = 1
        self._detector_scale = 1.0
        # Longer side of the detector's input at full load; 0 for a detector that takes images of any size.
        self._input_size_px = self.detector.input_size_px if isinstance(self.detector, Sizable) else 0
        self._tracks = TrackManager()
        self._cuts = SceneCuts()
        # `flow_luma` of the frame before.
        self._luma: ImageU8 | None = None
        # The time of the last detection, and the frames since then. Frames that a live source drops do not count.
        self._detected_s: float | None = None
        self._frames_since_detection = 0
        # The track that `largest_only` has selected.
        self._chosen: Track | None = None

    @property
    def detector_name(self) -> str:
        """The detector's name in reports."""
        return self.detector.name

    def set_load_level(self, detect_every_at_least: int = 1, detector_scale: float = 1.0) -> None:
        """Reduce the work from the next frame on, or restore it; may be called from any thread.

        Args:
            detect_every_at_least: Smallest number of frames from one detection to the next, if faces are tracked.
            detector_scale: Factor for the detector's input size.
        """
        self._detect_every_at_least = detect_every_at_least
        self._detector_scale = detector_scale

    def find(self, frame: Frame, timer: StageTimer) -> Detections:
        """Return the faces of the next frame, detected in it or tracked into it.

        `timer` gets the stage track and, if the detector ran, the stage detect.

        Raises:
            InputError: The region lies outside the frame, or a zone is smaller than a pixel.
        """
        check_sizes(self.zones, frame.size_wh)
        if self.schedule is None:
            detections = self._detect(frame)
            timer.mark("detect")
            return self._select(frame, detections)
        time_s = self.presentation_time_s(frame)
        luma = flow_luma(frame)
        coarse = coarse_image(luma)
        self._frames_since_detection += 1
        state = None
        if self._cuts.is_cut(coarse, time_s):
            self._tracks.end(time_s)
        # A schedule that detects in every frame needs no tracking, unless load is shed.
        elif self.schedule.follows or self._detect_every_at_least > 1:
            state = self._track(frame, luma, coarse, time_s)
        # Without `state`, no face was tracked into this frame.
        if state is None or (state.frames >= self._detect_every_at_least and self.schedule.due(state)):
            timer.mark("track")  # the mark at the end adds to it
            detections = self._detect(frame)
            timer.mark("detect")
            visible_before = self._tracks.visible
            self._tracks.correct(detections, time_s)
            self._detected_s, self._frames_since_detection = time_s, 0
            self.schedule.detected(coarse, changed=visible_before != self._tracks.visible)
        self._luma = luma
        faces = self._select(frame, self._tracks.detections())
        timer.mark("track")
        return faces

    @property
    def input_size_px(self) -> int | None:
        """The longer side of the detector's input at full load; None if the detector takes images of any size."""
        return self._input_size_px or None

    def _detect(self, frame: Frame) -> Detections:
        """Run the detector; return its faces of at least `min_face_px`, in pixels of the frame."""
        view_bgr, offset_xy, scale_xy = _detector_view(frame, self.region)
        if isinstance(self.detector, Sizable):
            if self.choose_input_size:
                view_wh = view_bgr.shape[1], view_bgr.shape[0]
                min_face_in_view_px = self.min_face_px / float(scale_xy.mean())
                self._input_size_px = detector_input_px(view_wh, min_face_in_view_px)
            # For each frame, because `set_load_level` may have changed the factor.
            self.detector.input_size_px = scaled_input_px(self._input_size_px, self._detector_scale)
        found = self.detector.detect(view_bgr)
        # From pixels of the view to pixels of the frame.
        xyxy = (found.xyxy + np.tile(offset_xy, 2)) * np.tile(scale_xy, 2)  # (N, 4); tiled: x, y, x, y
        landmarks_xy = None if found.landmarks_xy is None else (found.landmarks_xy + offset_xy) * scale_xy
        in_frame = replace(
            found,
            xyxy=xyxy.astype(np.float32),
            landmarks_xy=None if landmarks_xy is None else landmarks_xy.astype(np.float32),
        )
        mean_side_px = (xyxy[:, 2:] - xyxy[:, :2]).mean(axis=1)  # (N,)
        return in_frame[np.asarray(mean_side_px >= self.min_face_px, np.bool_)]

    def _track(self, frame: Frame, luma: ImageU8, coarse: FloatArray, time_s: float) -> TrackingState | None:
        """Track the faces of the frame before into this frame, and return the state from which the schedule decides.

        Return None if there was no detection yet, or if the frames have changed their size.
        """
        if self._luma is None or self._detected_s is None or self._luma.shape != luma.shape:
            return None
        luma_wh = luma.shape[1], luma.shape[0]
        # (4,): converts a box from pixels of the frame to pixels of `luma`, which is smaller.
        to_luma = np.tile(np.divide(luma_wh, frame.size_wh), 2).astype(np.float32)
        boxes_before = [track.xyxy * to_luma for track in self._tracks.visible]
        moved = self.tracker(self._luma, luma, boxes_before)  # None for a face that it has lost
        are_all_found = self._tracks.move([None if box is None else box.xyxy / to_luma for box in moved], time_s)
        self._tracks.keep_inside(_xyxy(self.region, frame.size_wh))
        found = [box for box in moved if box is not None]
        return TrackingState(
            frames=self._frames_since_detection,
            elapsed_s=time_s - self._detected_s,
            coarse=coarse,
            size_wh=luma_wh,
            boxes=[box.xyxy for box in found],
            lost=not are_all_found,
            followed=min((box.followed for box in found), default=1.0),
        )

    def _select(self, frame: Frame, faces: Detections) -> Detections:
        """Return the faces to classify: those in a zone; with `largest_only`, one of them.

        This is the largest face. It stays selected until another one is clearly larger.
        """
        faces = _in_zones(faces, self.zones, frame.size_wh)
        if not self.largest_only or not len(faces):
            return faces
        areas = (faces.xyxy[:, 2:] - faces.xyxy[:, :2]).prod(axis=1)  # (N,)
        selected = int(areas.argmax())
        if faces.tracks is not None:
            before = np.flatnonzero(faces.tracks == self._chosen)  # index of the face selected before; empty: not here
            if before.size and areas[selected] < _CLEARLY_LARGER * areas[before[0]]:
                selected = int(before[0])
            self._chosen = faces.tracks[selected]
        return faces[[selected]]


def flow_luma(frame: Frame) -> ImageU8:
    """Return the image in which faces are tracked: luma, uint8 (h, w), about 320 pixels on its longer side."""
    luma = frame.small_luma
    if luma is None:
        luma = np.asarray(cv2.cvtColor(frame.small_bgr, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = luma.shape
    # The factor is an integer, because area averaging by other factors takes ten times as long.
    step = max(round(max(height, width) / _FLOW_SIDE_PX), 1)
    if step == 1:
        return luma
    size_wh = max(width // step, 1), max(height // step, 1)
    whole = luma[: size_wh[1] * step, : size_wh[0] * step]
    return np.asarray(cv2.resize(whole, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _detector_view(frame: Frame, region: Region | None) -> tuple[ImageU8, FloatArray, FloatArray]:
    """Return the image that the detector searches: the frame's small image, or the part of it that shows the region.

    Returns:
        The image, uint8 (h, w, 3) B, G, R.
        Its upper left corner x, y in the small image (2,).
        The size of the frame in x and y, divided by that of the small image (2,).
    """
    small_bgr = frame.small_bgr
    scale_xy = np.divide(frame.size_wh, (small_bgr.shape[1], small_bgr.shape[0])).astype(np.float32)
    if region is None:
        return small_bgr, np.zeros(2, np.float32), scale_xy
    x0, y0, x1, y1 = region.xyxy(frame.size_wh)
    # Rounded outwards, so that the image shows the whole region.
    left, top = int(x0 / scale_xy[0]), int(y0 / scale_xy[1])
    right, bottom = int(np.ceil(x1 / scale_xy[0])), int(np.ceil(y1 / scale_xy[1]))
    return small_bgr[top:bottom, left:right], np.array([left, top], np.float32), scale_xy


def _xyxy(region: Region | None, frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a region as left, top, right, bottom in pixels of the frame; None stands for the whole frame."""
    return (0, 0, *frame_wh) if region is None else region.xyxy(frame_wh)


def _in_zones(faces: Detections, zones: Sequence[Zone], frame_wh: tuple[int, int]) -> Detections:
    """Return the faces whose centre lies in a zone, each with the first such zone; without zones, all faces."""
    if not zones:
        return faces
    centres = (faces.xyxy[:, :2] + faces.xyxy[:, 2:]) / 2 / np.array(frame_wh)  # (N, 2), as fractions of the frame
    first_zones = np.full(len(faces), _NO_ZONE, np.int64)
    for face, (x, y) in enumerate(centres):
        containing = [index for index, zone in enumerate(zones) if zone.contains(x, y)]
        if containing:
            first_zones[face] = containing[0]
    return replace(faces, zones=tuple(zones), zone_indices=first_zones)[first_zones > _NO_ZONE]


class WholeImage:
    """Returns the same boxes in each frame: the region of interest, the whole frame, or those of the zones.

    Needs no detector.
    """

    detector_name = "none"
    input_size_px = None

    def __init__(self, region: Region | None, *, is_sequence: bool, zones: Sequence[Zone] = ()) -> None:
        """Use `region` of each frame, None: the whole frame; with zones, the rectangles around them instead.

        In a sequence, each box has the same track in all frames.
        """
        self._regions: list[Region | None] = [zone.box for zone in zones] if zones else [region]
        self._zones = tuple(zones)
        tracks = [Track(number) for number in range(1, len(self._regions) + 1)]
        # Images that are no sequence have nothing in common to follow.
        self._tracks = np.array(tracks, np.object_) if is_sequence else None

    def find(self, frame: Frame, timer: StageTimer) -> Detections:
        """Return the parts of the frame to classify as boxes in whole pixels, with score 1.

        Raises:
            InputError: The region lies outside the frame, or a zone is smaller than a pixel.
        """
        del timer  # the boxes are fixed: there is no stage to measure
        check_sizes(self._zones, frame.size_wh)
        boxes = [_xyxy(region, frame.size_wh) for region in self._regions]
        return Detections(
            np.array(boxes, np.float32),
            np.ones(len(boxes), np.float32),
            tracks=self._tracks,
            are_regions=True,
            zones=self._zones,
            zone_indices=np.arange(len(boxes)) if self._zones else None,
        )

    def set_load_level(self, detect_every_at_least: int = 1, detector_scale: float = 1.0) -> None:
        """Do nothing: without a detector only a lower frame rate reduces the load."""


# Returns the boxes that the model classifies, for frames in their order.
Localizer: TypeAlias = FaceTracker | WholeImage
