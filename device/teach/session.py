"""A session of teaching on the frames of a run: recorded pictures, the fit, and its results for the newest frame.

Two threads work beside the run: one computes the features of the newest frame while somebody watches or records, and
the other one fits after each change of the recorded pictures. `edgekit.device.sinks.web.teach` has the routes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from edgekit.device.imaging import at_most, read_image
from edgekit.device.region import Region
from edgekit.device.teach.fit import RecordedFit, fit_recorded
from edgekit.device.teach.recordings import Picture, Recordings
from edgekit.device.teach.taught_file import TaughtFile
from edgekit.errors import EdgekitError, InputError, StorageError
from edgekit.files import sha256_of
from edgekit.preprocess import CROP_MARGIN, FloatArray, ImageU8, square_crop_box

if TYPE_CHECKING:
    from edgekit.contract import Subject
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.teach.embed import Embedder

RECORDED_FPS = 5.0
_LIVE_FPS = 15.0
# A browser repeats its request while the button is held; without one for this long the recording ends.
_HOLD_LASTS_S = 1.5
_WATCHED_FOR_S = 2.0
_PICTURE_SIDE_PX, _JPEG_QUALITY = 480, 92
_END_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class SessionParts:
    """What a session works with.

    Attributes:
        file: The file of the taught model.
        recordings: The recorded pictures.
        subject: What is taught: whole images, or states of the largest face.
        make_embedder: Returns an embedder; each thread has its own.
        use_model: Lets the run classify with another model file.
        roi: The run's region of interest, which then is the session's; None: the session has its own.
        region: The session's own region at the start.
        shortage: Returns why no picture may be written, "" if it may.
    """

    file: TaughtFile
    recordings: Recordings
    subject: Subject
    make_embedder: Callable[[], Embedder]
    use_model: Callable[[Path], None]
    roi: Region | None = None
    region: Region | None = None
    shortage: Callable[[], str] = lambda: ""


@dataclass
class _Hold:
    """A recording that goes on while a button is held."""

    label: str
    group: str
    until_s: float
    taken: int = 0
    latest_s: float = field(default=float("-inf"))


class TeachSession:
    """The state of a session; thread-safe. `watch` and `fit_changes` are the work of its two threads.

    Attributes:
        version: Increases with each change of `state`.
        live: The result of the fit for the newest frame, ready for JSON; None before the first. Replaced as a whole.
    """

    def __init__(self, parts: SessionParts) -> None:
        """Begin a session; the caller starts the two threads."""
        self._parts = parts
        self._recordings = parts.recordings
        self.live: dict[str, Any] | None = None  # what the fit sees in the newest frame, for the page
        # The lock of the newest frame. The pipeline's thread takes it, so nothing waits for a disk while it is held.
        self._arrived = threading.Condition()
        self._newest: tuple[Frame, FrameResult] | None = None
        self._ended = False
        self._watched_until_s = float("-inf")
        # The lock of the taught file, which may wait for the disk.
        self._writing = threading.Lock()
        # The lock of everything else: of the recorded pictures and of the following fields.
        self._changed = threading.Condition(threading.RLock())
        self.version = 1  # of the state, with which the page finds changes
        self._message = ""  # the latest error of a recording
        self._hold: _Hold | None = None  # the recording that goes on
        self._region = parts.roi or parts.region
        self._revision = 1  # of the recorded pictures
        self._fitted_revision = 0
        self._result: RecordedFit | None = None  # of the pictures of `_fitted_revision`
        # Fit and region of the latest "Use it", with the SHA-256 of its file.
        self._stored: tuple[RecordedFit, Region | None, str] | None = None
        self._used_sha256 = ""  # of the model in use, after "Use it" or "Go back"

    def offer(self, frame: Frame, result: FrameResult) -> None:
        """Replace the newest frame, without waiting."""
        with self._arrived:
            self._newest = (frame, result)
            self._arrived.notify()

    def end(self) -> None:
        """Let the two threads end."""
        with self._arrived:
            self._ended = True
            self._arrived.notify()

    def keep_watching(self) -> None:
        """Let `live` be computed for the next two seconds."""
        self._watched_until_s = time.monotonic() + _WATCHED_FOR_S

    def record(self, label: str, *, is_held: bool) -> None:
        """Record a class while a button is held; the page calls this repeatedly, at the end with `is_held` false.

        The recording ends at the latest when the calls stop, but has at least one picture.

        Raises:
            InputError: The class does not exist.
            StorageError: The disk fails.
        """
        with self._changing():
            hold = self._hold
            if is_held and (hold is None or hold.label != label):
                self._end_recording()
                hold = self._hold = _Hold(label, self._recordings.begin(label), until_s=0.0)  # set below
            if hold is None or hold.label != label:
                return  # a late request to end the recording of another class
            hold.until_s = time.monotonic() + (_HOLD_LASTS_S if is_held else 0.0)
            # A recording without a picture goes on: `_record` ends it after one picture.
            if not is_held and hold.taken > 0:
                self._end_recording()

    def add_class(self, name: str) -> None:
        """Add a class; this method and the four next ones raise as those of `Recordings`."""
        self._change(self._recordings.add_class, name)

    def rename_class(self, name: str, new: str) -> None:
        """Give a class another name."""
        self._change(self._recordings.rename_class, name, new)

    def remove_class(self, name: str) -> None:
        """Remove a class with its pictures."""
        self._change(self._recordings.remove_class, name)

    def remove_picture(self, label: str, name: str) -> None:
        """Remove a picture."""
        self._change(self._recordings.remove, label, name)

    def undo(self) -> None:
        """Undo the latest change."""
        self._change(self._recordings.undo)

    def picture(self, label: str, name: str) -> bytes:
        """Return the JPEG of a picture.

        Raises:
            InputError: There is no such picture, or its file was deleted.
        """
        with self._changed:
            path = self._recordings.path(label, name)
        # Read without the lock, so that a slow disk does not hold up the other threads.
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"picture '{name}' of class '{label}' was deleted") from error

    def pictures(self) -> list[tuple[str, Path]]:
        """Return (CLASS/name, file) of each picture, for an archive of all."""
        with self._changed:
            return [
                (f"{label}/{each.name}", self._recordings.folder / label / each.name)
                for label, pictures in self._recordings.classes.items()
                for each in pictures
            ]

    def set_region(self, region: Region | None) -> None:
        """Teach and classify this part of the frame only; None: the whole frame. Recorded pictures stay as they are.

        Raises:
            InputError: The run has a region of its own, or faces are taught, which the run finds itself.
        """
        with self._changing():
            if self._parts.roi is not None or self._parts.subject == "face":
                raise InputError("the region is the run's: change --roi")
            self._region = region

    def use(self) -> None:
        """Write the fit as the taught model, and let the run classify with it from its next frame on.

        Raises:
            InputError: There is no fit yet.
            StorageError: The file cannot be written.
        """
        with self._changed:
            result, region = self._result, self._region
        if result is None:
            raise InputError("there is nothing to use yet: record two things first")
        from edgekit.device.teach.write import write_model  # imports onnx

        # The session's own region becomes a part of the model, but not --roi, which the run applies itself.
        xyxy = None  # in fractions of the frame
        if region is not None and self._parts.roi is None:
            xyxy = (region.x, region.y, min(region.x + region.width, 1.0), min(region.y + region.height, 1.0))
        file = self._parts.file
        with self._writing:  # without the other locks: the run and the page do not wait for the disk
            embedder = self._parts.make_embedder()
            file.store(lambda path: write_model(result.fit, path, embedder, region=xyxy))
            self._parts.use_model(file.current)
            used_sha256 = sha256_of(file.current)
        with self._changing():
            self._stored = (result, region, used_sha256)
            self._used_sha256 = used_sha256

    def go_back(self) -> None:
        """Let the run classify with the model before; a second call goes forward again.

        Raises:
            InputError: There is no model before.
            StorageError: The disk fails.
        """
        with self._writing:  # not the lock of the state: the run and the page do not wait for the disk
            self._parts.file.exchange()
            self._parts.use_model(self._parts.file.current)
            used_sha256 = sha256_of(self._parts.file.current)
        with self._changing():
            self._used_sha256 = used_sha256

    def model(self) -> tuple[str, bytes]:
        """Return the name and the content of the taught model.

        Raises:
            InputError: No taught model is in use.
        """
        file = self._parts.file
        with self._writing:  # no other request replaces the file meanwhile
            if not file.is_used:
                raise InputError("no taught model is in use")
            return file.path.name, file.path.read_bytes()

    def state(self) -> dict[str, Any]:
        """Return all that the page shows except for `live`, ready for JSON."""
        with self._changed:
            recordings, file, result = self._recordings, self._parts.file, self._result
            return {
                "version": self.version,
                "subject": self._parts.subject,
                "classes": [
                    {"name": label, "pictures": [each.name for each in pictures]}
                    for label, pictures in recordings.classes.items()
                ],
                "recording": None if self._hold is None else self._hold.label,
                "undo": recordings.latest_change,
                "size_bytes": recordings.size_bytes,
                "most_bytes": recordings.most_bytes,
                "folder": str(recordings.folder),
                "file": str(file.path),
                "is_used": file.is_used,
                "has_before": file.has_before,
                "is_fit_used": self._is_fit_used(),
                "base": None if file.is_for_any else file.base.name,
                "region": None if self._region is None else vars(self._region),
                # Whether the region can be drawn on the page: --roi sets it for the run, and faces need none.
                "has_own_region": self._parts.roi is None and self._parts.subject == "image",
                "is_fitting": self._is_fit_due(),
                "fit": None if result is None else {"accuracy": result.accuracy, "advice": result.advice},
                "message": self._message,
            }

    def _is_fit_used(self) -> bool:
        """Return whether the run classifies with the newest fit and the present region."""
        if self._stored is None:
            return False
        stored_fit, stored_region, stored_sha256 = self._stored
        is_newest = stored_fit is self._result and stored_region == self._region
        return is_newest and stored_sha256 == self._used_sha256  # not after "Go back"

    def watch(self) -> None:
        """Classify the newest frame for `live`, and record pictures, again and again until the end.

        This is the work of the first thread. It waits while nobody watches or records.
        """
        embedder: Embedder | None = None
        while (taken := self._take()) is not None:
            frame, result = taken
            embedder = embedder or self._parts.make_embedder()  # loaded when it is first needed
            began_s = time.monotonic()
            image_bgr = self._view(frame, result)
            if image_bgr is None:
                self._end_late_recording()
                self._show(frame, None)
            elif self._is_picture_due():
                views = embedder.views(image_bgr)
                self._record(image_bgr, views)
                self._show(frame, views[0])  # the first view is the picture itself
            else:
                self._show(frame, embedder.features([image_bgr])[0])
            with self._arrived:  # wait for the next period, or until `end`
                left_s = began_s + 1 / _LIVE_FPS - time.monotonic()
                self._arrived.wait_for(lambda: self._ended, max(0.0, left_s))

    def fit_changes(self) -> None:
        """Fit after each change of the recorded pictures, until the end; this is the work of the second thread."""
        while not self._ended:
            with self._changed:
                # `end` notifies only the other thread, so this one looks for the end at intervals.
                if not self._changed.wait_for(self._is_fit_due, _END_POLL_S):
                    continue
                revision = self._revision  # a picture that is recorded during the fit makes another fit due
                # Copies, because pictures may be recorded during the fit.
                classes = {label: list(pictures) for label, pictures in self._recordings.classes.items()}
            self._embed(classes)  # sets `views` of the recorded pictures themselves, so it is done once for each
            result = fit_recorded(classes)
            with self._changing():
                self._result, self._fitted_revision = result, revision

    def _embed(self, classes: Mapping[str, Sequence[Picture]]) -> None:
        """Compute the features of the pictures that have none: those recorded before this session."""
        embedder: Embedder | None = None
        for label, pictures in classes.items():
            for picture in pictures:
                if self._ended:
                    return
                if picture.views is None:
                    embedder = embedder or self._parts.make_embedder()  # loaded when it is first needed
                    with suppress(InputError):  # the file was deleted or is damaged: fits leave the picture out
                        picture.views = embedder.views(read_image(self._recordings.folder / label / picture.name))

    def _is_fit_due(self) -> bool:
        """Return whether the pictures have changed since the latest fit, and no recording goes on."""
        return self._hold is None and self._revision != self._fitted_revision

    def _take(self) -> tuple[Frame, FrameResult] | None:
        """Wait until there is a new frame and somebody watches or records, and return the frame; None at the end.

        Only the newest frame is kept, so frames that arrive during the work on one are skipped.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended or (self._newest is not None and self._is_needed()))
            if self._ended:
                return None
            taken, self._newest = self._newest, None
            return taken

    def _is_needed(self) -> bool:
        """Return whether somebody records or watches."""
        return self._hold is not None or time.monotonic() < self._watched_until_s

    def _view(self, frame: Frame, result: FrameResult) -> ImageU8 | None:
        """Return the part of a frame that is taught, B, G, R: the region, or a square around the largest face.

        Without a face it is None.
        """
        if self._parts.subject == "face":
            boxes = result.faces.xyxy
            if result.faces.are_regions or len(boxes) == 0:  # parts of the frame, or no box
                return None
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            x0, y0, x1, y1 = square_crop_box(boxes[areas.argmax()], frame.size_wh, CROP_MARGIN)
        else:
            region = self._region
            x0, y0, x1, y1 = (0, 0, *frame.size_wh) if region is None else region.xyxy(frame.size_wh)
        return frame.image_bgr[y0:y1, x0:x1]

    def _is_picture_due(self) -> bool:
        """Return whether a recording goes on whose next picture is due."""
        hold = self._hold
        return hold is not None and time.monotonic() - hold.latest_s >= 1 / RECORDED_FPS

    def _end_late_recording(self) -> None:
        """End a recording some time after its button was released; without a face, it has no picture until then."""
        with self._changed:
            if self._hold is not None and time.monotonic() > self._hold.until_s + _HOLD_LASTS_S:
                with self._changing():
                    self._end_recording()

    def _record(self, image_bgr: ImageU8, views: FloatArray) -> None:
        """Add a picture to the recording, and end the recording if its button was released or an error occurs."""
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _success, jpeg = cv2.imencode(".jpg", at_most(image_bgr, _PICTURE_SIDE_PX), quality)
        with self._changing():
            hold = self._hold
            if hold is None:  # ended meanwhile
                return
            # `record` extends the time while the button is held.
            is_over = time.monotonic() > hold.until_s
            try:
                if not is_over or hold.taken == 0:  # at least one picture, also of a short press
                    if shortage := self._parts.shortage():  # such as a nearly full disk; "" if there is none
                        raise StorageError(shortage)
                    self._recordings.add(hold.label, hold.group, jpeg.tobytes(), views)
                    hold.taken += 1
                    hold.latest_s = time.monotonic()
            except EdgekitError as error:
                self._message = str(error)
                is_over = True
            if is_over:
                self._end_recording()

    def _show(self, frame: Frame, features: FloatArray | None) -> None:
        """Set `live` to what the fit sees in a frame with these features; None: the frame has no face."""
        result = self._result
        document: dict[str, Any] = {"sequence": frame.sequence}
        if result is not None and features is not None:
            document |= result.judgement(features)
        document["age_ms"] = round((time.monotonic() - frame.monotonic_s) * 1e3, 1)
        self.live = document  # replaced as a whole, so other threads read it without a lock

    def _end_recording(self) -> None:
        """End the recording, if one goes on; then a fit is due."""
        if self._hold is not None:
            self._hold = None
            self._revision += 1

    def _change(self, change: Callable[..., object], *arguments: str) -> None:
        """Apply a change of the recorded pictures, after the end of a recording."""
        with self._changing():
            self._end_recording()
            change(*arguments)
            self._revision += 1

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the state in the block, with its lock; the message of an earlier error is cleared.

        At the end, also after an error, the page gets a new `version`, and the thread that fits is woken.
        """
        with self._changed:
            self._message = ""
            try:
                yield
            finally:
                self.version += 1
                self._changed.notify_all()
