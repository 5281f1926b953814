"""Where the faces are in each frame: the detector now and then, optical flow in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edgekit.device.detection import Detections, Detector, Sizable
from edgekit.device.frame import Frame
from edgekit.device.region import Region, detector_input_px, scaled_input_px
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.detection_schedule import Moment, Schedule
from edgekit.device.tracking.optical_flow import move_boxes
from edgekit.device.tracking.tracker import MoveBoxes, Tracker
from edgekit.preprocess import FloatArray, ImageU8

# The picture that faces are followed in has this longer side: finer ones cost more and follow no better.
_FLOW_SIDE_PX = 320
# With `largest`, another face takes over when it is larger by this factor, not by a pixel.
_TAKE_OVER = 1.2
_NOTHING: ImageU8 = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True)
class Faces:
    """The faces of one frame.

    Attributes:
        xyxy: float32 (N, 4): left, top, right, bottom in pixels of the frame; may lie partly outside it.
        scores: float32 (N,), the detector's when it last found the face.
        track_ids: N ids, None where faces are not followed.
        detected: N flags: the detector found it in this frame.
    """

    xyxy: FloatArray
    scores: FloatArray
    track_ids: tuple[int | None, ...]
    detected: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.track_ids)


def as_faces(detections: Detections) -> Faces:
    """Return what a detector found, as faces that nobody follows."""
    count = len(detections)
    return Faces(detections.xyxy, detections.scores, (None,) * count, (True,) * count)


class FaceTracker:
    """Finds the faces of frames in their order. Not to be shared between threads, but for `ease`."""

    def __init__(
        self,
        detector: Detector,
        schedule: Schedule | None,
        *,
        follow: MoveBoxes | None = None,
        region: Region | None = None,
        min_face_px: int = 0,
        choose_input_size: bool = False,
        largest_only: bool = False,
        presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
    ) -> None:
        """Compose a face_tracker.

        Args:
            detector: What finds faces in a picture.
            schedule: When to search; None: in every frame, each on its own, and no face is followed.
            follow: What follows boxes between detections; default: `flow.move_boxes`.
            region: The part of the frame that counts; default: all of it.
            min_face_px: Faces whose box has a smaller mean side are left out; pixels of the frame.
            choose_input_size: Let the detector's picture be as large as `min_face_px` needs, as the first frame tells.
            largest_only: Keep the largest face of a frame only.
            presentation_time_s: Seconds at which a frame was taken. For a file that is its place in the file, so that results
                do not depend on how fast it was read.
        """
        self.detector = detector
        self._detect_every_at_least = 1
        self._schedule = schedule
        self._region = region
        self._min_face_px = min_face_px
        self._choose_input_size = choose_input_size
        self._input_size_px = detector.input_size_px if isinstance(detector, Sizable) else 0
        self._detector_scale = 1.0
        self._largest_only = largest_only
        self._picture_time = presentation_time_s
        self._move_boxes = follow or move_boxes
        self._tracker = Tracker()
        self._luma: ImageU8 | None = None
        self._detected_s: float | None = None
        self._frames_since = 0
        self._favourite: int | None = None

    def warm_up(self, frame: Frame) -> None:
        """Let the detector see a frame once, after its input size has been chosen, if that was asked for."""
        view_bgr, _, scale = _view(frame, self._region)
        if self._choose_input_size:
            view_wh = view_bgr.shape[1], view_bgr.shape[0]
            self._input_size_px = detector_input_px(view_wh, self._min_face_px / float(scale.mean()))
        self._search(view_bgr)

    def set_load_level(self, detect_every_at_least: int = 1, detector_scale: float = 1.0) -> None:
        """Do less from the next frame on, or all again; may be called from any thread.

        Args:
            detect_every_at_least: No more than one frame in so many is searched, where faces are followed at all.
            detector_scale: The detector's picture is this share of its usual size.
        """
        self._detect_every_at_least = detect_every_at_least
        self._detector_scale = detector_scale

    def find(self, frame: Frame, timer: StageTimer) -> Faces:
        """Return the frame's faces; `timer` gets the stages detect, where the detector ran, and track.

        Raises:
            InputError: The region lies outside the frame.
        """
        if self._schedule is None:
            detections = self._detect(frame)
            timer.mark("detect")
            return self._chosen(as_faces(detections))
        time_s = self._picture_time(frame)
        follows = self._schedule.follows or self._detect_every_at_least > 1
        luma = flow_luma(frame) if follows else _NOTHING
        if not follows or self._follow(frame, luma, time_s, self._schedule):
            timer.mark("track")
            detections = self._detect(frame)
            timer.mark("detect")
            before = {track.id for track in self._tracker.visible}
            self._tracker.correct(detections, time_s)
            self._detected_s, self._frames_since = time_s, 0
            self._schedule.detected(luma, news=before != {track.id for track in self._tracker.visible})
        self._luma = luma
        faces = self._chosen(self._followed())
        timer.mark("track")
        return faces

    @property
    def input_size_px(self) -> int | None:
        """The longer side of the detector's picture at full load; None where it takes the picture as it is."""
        return self._input_size_px or None

    def _search(self, view_bgr: ImageU8) -> Detections:
        if isinstance(self.detector, Sizable):
            self.detector.input_size_px = scaled_input_px(self._input_size_px, self._detector_scale)
        return self.detector.detect(view_bgr)

    def _detect(self, frame: Frame) -> Detections:
        view_bgr, offset_xy, scale = _view(frame, self._region)
        found = self._search(view_bgr)
        xyxy = (found.xyxy + np.tile(offset_xy, 2)) * np.tile(scale, 2)
        landmarks_xy = None if found.landmarks_xy is None else (found.landmarks_xy + offset_xy) * scale
        large = (xyxy[:, 2:] - xyxy[:, :2]).mean(axis=1) >= self._min_face_px
        return Detections(
            xyxy[large].astype(np.float32),
            found.scores[large],
            None if landmarks_xy is None else landmarks_xy[large].astype(np.float32),
        )

    def _follow(self, frame: Frame, luma: ImageU8, time_s: float, schedule: Schedule) -> bool:
        """Move the known faces into this frame; return whether it has to be searched."""
        # Those that came here: a live source's dropped ones cost nothing.
        self._frames_since += 1
        if self._luma is None or self._detected_s is None or self._luma.shape != luma.shape:
            return True
        to_luma = np.tile(np.divide((luma.shape[1], luma.shape[0]), frame.size_wh), 2).astype(np.float32)
        moved = self._move_boxes(self._luma, luma, [track.xyxy * to_luma for track in self._tracker.visible])
        kept = self._tracker.move([None if box is None else box.xyxy / to_luma for box in moved], time_s)
        left, top, right, bottom = self._region.xyxy(frame.size_wh) if self._region else (0, 0, *frame.size_wh)
        self._tracker.keep_inside((left, top, right, bottom))
        moment = Moment(
            frames=self._frames_since,
            elapsed_s=time_s - self._detected_s,
            luma=luma,
            boxes=[box.xyxy for box in moved if box is not None],
            lost=not kept,
            followed=min((box.followed for box in moved if box is not None), default=1.0),
        )
        return moment.frames >= self._detect_every_at_least and schedule.due(moment)

    def _followed(self) -> Faces:
        tracks = self._tracker.visible
        return Faces(
            np.stack([track.xyxy for track in tracks]) if tracks else np.zeros((0, 4), np.float32),
            np.array([track.score for track in tracks], np.float32),
            tuple(track.id for track in tracks),
            tuple(track.detected for track in tracks),
        )

    def _chosen(self, faces: Faces) -> Faces:
        if not self._largest_only or len(faces) < 2:
            return faces
        areas = (faces.xyxy[:, 2:] - faces.xyxy[:, :2]).prod(axis=1)
        best = int(areas.argmax())
        if self._favourite in faces.track_ids and self._favourite is not None:
            held = faces.track_ids.index(self._favourite)
            best = held if areas[best] < _TAKE_OVER * areas[held] else best
        self._favourite = faces.track_ids[best]
        one = slice(best, best + 1)
        return Faces(faces.xyxy[one], faces.scores[one], faces.track_ids[one], faces.detected[one])


def flow_luma(frame: Frame) -> ImageU8:
    """Return the picture that faces are followed in: luma, uint8 (h, w), about 320 pixels on its longer side."""
    luma = frame.small_luma
    if luma is None:
        luma = np.asarray(cv2.cvtColor(frame.small_bgr, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = luma.shape
    # Whole steps: averaging over others takes ten times as long.
    step = max(round(max(height, width) / _FLOW_SIDE_PX), 1)
    if step == 1:
        return luma
    size_wh = max(width // step, 1), max(height // step, 1)
    whole = luma[: size_wh[1] * step, : size_wh[0] * step]
    return np.asarray(cv2.resize(whole, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _view(frame: Frame, region: Region | None) -> tuple[ImageU8, FloatArray, FloatArray]:
    """Return what the detector sees, the place of its corner in the small picture, and the frame's size over that."""
    picture_bgr = frame.small_bgr
    small_wh = picture_bgr.shape[1], picture_bgr.shape[0]
    scale = np.divide(frame.size_wh, small_wh).astype(np.float32)
    if region is None:
        return picture_bgr, np.zeros(2, np.float32), scale
    x0, y0, x1, y1 = region.xyxy(frame.size_wh)
    left, top = int(x0 / scale[0]), int(y0 / scale[1])
    right, bottom = int(np.ceil(x1 / scale[0])), int(np.ceil(y1 / scale[1]))
    return picture_bgr[top:bottom, left:right], np.array([left, top], np.float32), scale
