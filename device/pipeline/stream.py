"""Results of a camera, video or folder of images, frame by frame: `edgekit.stream`.

import edgekit

with edgekit.stream(source="demo") as results:
    for result in results:
        print(result.sequence, result.faces.labels)
"""

from __future__ import annotations

import atexit
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias
from weakref import WeakSet

import cv2

from edgekit.contract import Contract
from edgekit.device.controls import Controls
from edgekit.device.detection import Detector, create_detector, fixed_input_px, needed_detector
from edgekit.device.detections import FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import device_suffixes
from edgekit.device.engines.session import plan_threads
from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.imaging import as_frame, decode_image
from edgekit.device.pipeline import StreamOptions
from edgekit.device.pipeline.loop import frame_results, recognise
from edgekit.device.pipeline.summary import LatencyMeter
from edgekit.device.region import DEFAULT_INPUT_SIZE_PX, Region, taught_region
from edgekit.device.registry import find
from edgekit.device.sink import Sink
from edgekit.device.sources import open_camera, open_source
from edgekit.device.sources.files import ImageSource
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker, Localizer, WholeImage
from edgekit.device.tracking.detection_schedule import Adaptive, Every
from edgekit.errors import InputError
from edgekit.model_store import resolve_model
from edgekit.options import takes
from edgekit.report.document import ThreadUse

_Results: TypeAlias = Generator[tuple[Frame, FrameResult], None, None]

# Options without effect on a model of whole images.
_OF_FACES = (
    "detector_size_px", "detect_every", "tracker", "mirror", "min_face_px", "largest_only",
)  # fmt: skip


# The streams and their iterators that still exist. At the end of Python, their threads would abort the process.
_EXISTING: WeakSet[Stream | _Results] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what a program has left open, such as by leaving its loop."""
    for each in list(_EXISTING):
        with suppress(ValueError):  # another thread is iterating
            each.close()


@dataclass
class _NetsInUse:
    """What finds and classifies the faces of the next frame; `use_model` replaces both at once."""

    current: tuple[Localizer, Classifier]


class Stream:
    """An iterator of `FrameResult`s, with the source and the nets it uses.

    The source is closed at the end of the iteration, at the end of a `with` block, by `close`, and when a loop over the
    stream is left and no variable refers to the stream. OpenCV's number of threads is set for the whole process.

    Attributes:
        options: The options in effect, with the detector that the model needs.
        source: The opened source.
        meter: Latencies per stage and the frame rate.
        controls: Pauses and resumes the stream. During a pause, a camera or network stream is released.
        threads: The number of threads of each part.
    """

    def __init__(self, options: StreamOptions) -> None:
        """Open the source and load the nets.

        Raises:
            InputError: An option is out of range, or a file does not exist or cannot be used.
            SourceError: The camera or stream is absent or does not respond.
            StorageError: The download of the detector is not the expected file.
        """
        self.meter = LatencyMeter()
        self.controls = Controls()
        model_path = resolve_model(str(options.model), device_suffixes(str(options.model)))
        classifier, self.threads = _load_model(model_path, options)
        # As the user gave them; `use_model` completes them for another model.
        self._given = options
        self.options = _completed(options, classifier.contract, model_path)
        cv2.setNumThreads(self.threads.opencv)  # of the whole process
        with ExitStack() as opened:
            self.source = opened.enter_context(_open(self.options))
            self._nets = _NetsInUse(self._prepared(classifier, self.options))
            # From here on `close` closes the source; before, an error does.
            self._opened = opened.pop_all()
        # A generator: it begins when the first result is requested. It must not refer to the stream, so that leaving a
        # loop over the stream closes both at once.
        self._results = _until_end(self._opened, self._frame_results())
        _EXISTING.update((self, self._results))

    @property
    def localizer(self) -> Localizer:
        """The detector with its schedule and tracker, or `WholeImage`."""
        return self._nets.current[0]

    @property
    def classifier(self) -> Classifier:
        """The model; its contract has the stream's `uncertain_below`."""
        return self._nets.current[1]

    @property
    def roi(self) -> Region | None:
        """The region of the options; None: the model in use may have its own."""
        return self._given.region

    def use_model(self, path: Path) -> Contract:
        """Classify the next frame and all later ones with another model file, and return its contract.

        Any thread may call this. A model of whole images can take the place of one of faces, and the other way round.
        Tracks begin anew.

        Raises:
            InputError: As `Classifier`; the model in use stays.
        """
        classifier = Classifier(path, self.threads.classifier)
        options = replace(self._given, model=path)
        if classifier.contract.subject == "image":
            # Options that the user gave for the model of faces have no effect on this one. They get their defaults,
            # because `_completed` refuses others.
            defaults: dict[str, Any] = {name: getattr(StreamOptions, name) for name in _OF_FACES}
            options = replace(options, detector=None, **defaults)
        options = _completed(options, classifier.contract, path)
        self._nets.current = self._prepared(classifier, options)
        self.options = options
        return classifier.contract

    def _prepared(self, classifier: Classifier, options: StreamOptions) -> tuple[Localizer, Classifier]:
        """Apply the options to a classifier, and return its localizer and it."""
        if options.uncertain_below is not None:
            classifier.contract = replace(classifier.contract, uncertain_below=options.uncertain_below)
        classifier.mirror = _mirrors(options, classifier.contract, self.source)
        make_detector = partial(_create_detector, options, self.threads.detector)
        return create_localizer(classifier.contract, self.source, options, make_detector), classifier

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameResult]:
        return self

    def __next__(self) -> FrameResult:
        """Return the next frame's result.

        Raises:
            SourceError: The camera or stream was lost.
            InputError: The source has no readable frame, or the model returns NaN or infinity.
        """
        _frame, result = next(self._results)
        return result

    def with_frames(self) -> Iterator[tuple[Frame, FrameResult]]:
        """Return the iterator of frames with their results, for drawing: `frame.image_bgr` has the pixels."""
        return self._results

    def run(
        self, sinks: Sequence[Sink], *, annotate: Callable[[FrameResult], FrameResult] = lambda result: result
    ) -> None:
        """Open the sinks and pass all results to them.

        Args:
            sinks: Consumers of the results.
            annotate: Called for each result; what it returns is passed to the sinks.

        Raises:
            StorageError: A sink cannot write.
            SourceError, InputError: As `__next__`.
        """
        # At the end in reverse order: the threads of the stages, the sinks, the source.
        with self._opened, ExitStack() as opened:
            for sink in sinks:
                opened.enter_context(sink)
            results = opened.enter_context(closing(self._frame_results(annotate)))
            for frame, result in results:
                for sink in sinks:
                    sink.write(frame, result)

    def picture_recogniser(self) -> Callable[[bytes], FrameResult]:
        """Return a function that returns the result of an encoded picture with the stream's model.

        The stream's region, zones and smallest face do not apply. Calls from several threads wait for each other. The
        function raises InputError if a picture cannot be decoded.
        """
        return _PictureRecogniser(self).recognise

    def stop(self) -> None:
        """End the iteration before its next frame; may be called from a signal handler or another thread."""
        self.source.stop()
        self.controls.end()

    def close(self) -> None:
        """End the threads and close the source; a second call does nothing.

        Only the thread that iterates may call this method. Other threads call `stop` instead.
        """
        # First the threads, which read the source.
        self._results.close()
        self._opened.close()

    def _frame_results(self, annotate: Callable[[FrameResult], FrameResult] = lambda result: result) -> _Results:
        """Return `loop.frame_results` with the stream's nets, options and meter."""
        nets = self._nets
        return frame_results(
            self.source,
            self.localizer,
            self.classifier,
            self.meter,
            self.options.max_frames,
            smooth_s=self.options.smooth_s,
            classify_every=1 if self.options.every_frame else self.options.classify_every,
            presentation_time_s=presentation_time_s(self.source),
            threaded=self.threads.staged,
            annotate=annotate,
            controls=self.controls,
            current_nets=lambda: nets.current,  # read for each frame, because `use_model` replaces them
        )


def _until_end(opened: ExitStack, results: _Results) -> _Results:
    """Yield all results, and close the source, which is in `opened`, after the last one."""
    with opened:
        yield from results


class _PictureRecogniser:
    """Classifies single pictures, with nets of its own so that the frames of the stream do not wait for them."""

    def __init__(self, stream: Stream) -> None:
        """Use the model and the options of `stream`; the nets are loaded for the first picture."""
        self._stream = stream
        self._lock = threading.Lock()
        self._numbers = itertools.count()  # sequence numbers of the pictures
        # The nets for pictures, and the stream's classifier whose model they have; None before the first picture.
        self._nets: tuple[Localizer, Classifier] | None = None
        self._loaded_for: Classifier | None = None

    def recognise(self, data: bytes) -> FrameResult:
        """Return the result of one encoded picture."""
        with self._lock:
            captured_s, wall_s = time.monotonic(), time.time()
            image_bgr = as_frame(decode_image(data, "in the request"))
            frame = Frame(next(self._numbers), captured_s, wall_s, image_bgr)
            current = self._stream.classifier
            if self._nets is None or self._loaded_for is not current:  # `use_model` changes the model
                self._nets = None  # freed before the next nets need memory
                self._nets, self._loaded_for = self._load(current), current
            localizer, classifier = self._nets
            return recognise(frame, localizer, classifier, StageTimer())

    def _load(self, current: Classifier) -> tuple[Localizer, Classifier]:
        """Return nets for single pictures, with the model and the contract of `current`.

        Each has one thread, because the stream uses the other processors.
        """
        pictures = ImageSource([], "pictures", self._stream.options.notify)
        # "auto" detects faces in every picture, because pictures have no order in time.
        options = replace(self._stream.options, region=None, zones=(), min_face_px=0, detect_every="auto")
        classifier = Classifier(current.path, intra_op_threads=1)
        classifier.contract = current.contract  # with the threshold of the options, see `Stream._prepared`
        classifier.mirror = _mirrors(options, classifier.contract, pictures)
        make_detector = partial(_create_detector, options, threads=1)
        return create_localizer(classifier.contract, pictures, options, make_detector), classifier


@takes(StreamOptions)
def stream(options: StreamOptions) -> Stream:
    """Return an iterator of the results of a source or camera, computed in the same way as in `edgekit run`.

    `StreamOptions` describes the arguments, and `Stream` describes the errors.

        from edgekit.device.annotate import draw_faces

        for frame, result in edgekit.stream(camera="auto").with_frames():
            drawn_bgr = draw_faces(frame.image_bgr, result.faces)
    """
    return Stream(options)


def _open(options: StreamOptions) -> Source:
    """Return the opened source or camera of the options."""
    if (options.source is None) == (options.camera is None):
        raise InputError("a stream reads either a source or a camera: give one of source= and camera=")
    if options.source is not None:
        if options.camera_settings != CameraSettings():
            raise InputError("camera_settings are for cameras: leave them out, or give camera= instead of source=")
        return open_source(str(options.source), options.notify, realtime=options.realtime, repeat=options.repeat)
    if options.realtime:
        raise InputError("realtime is for recordings; a camera has its own frame rate: leave it out")
    fixed_px = options.detector_size_px or DEFAULT_INPUT_SIZE_PX
    settings = replace(
        options.camera_settings,
        detector_px=None if _chooses_input_size(options) else fixed_px,
        min_face_px=options.min_face_px,
        region=options.region,
        detects=options.detector != "none",
    )
    # `camera` is no None here; "" is refused as an unknown camera.
    return open_camera(options.camera or "", options.notify, settings)


def create_localizer(
    contract: Contract, source: Source, options: StreamOptions, make_detector: Callable[[], Detector]
) -> Localizer:
    """Return the localizer for the model of `contract` and the frames of `source`.

    For a model of faces this is a `FaceTracker` with the detection schedule and the tracker of `options`, for a model
    of whole images it is `WholeImage`.
    """
    if contract.subject == "image":
        is_sequence = source.live or source.fps is not None
        return WholeImage(options.region, is_sequence=is_sequence, zones=options.zones)
    detector = make_detector()
    every = 1 if options.every_frame else options.detect_every
    schedule = Adaptive() if every == "auto" else Every(every)
    # Images without an order in time are not tracked: the detector runs on each of them. With `detect_every` the user
    # has stated that they are a sequence.
    is_sequence = source.live or source.fps is not None or options.detect_every != "auto"
    is_tracked = detector.name != "none" and is_sequence  # without a detector, the face is the whole image
    return FaceTracker(
        detector,
        schedule if is_tracked else None,
        tracker=find("tracker", options.tracker)(),
        region=options.region,
        min_face_px=options.min_face_px,
        choose_input_size=_chooses_input_size(options) and fixed_input_px(detector) is None,
        largest_only=options.largest_only,
        presentation_time_s=presentation_time_s(source),
        zones=options.zones,
    )


def _load_model(path: Path, options: StreamOptions) -> tuple[Classifier, ThreadUse]:
    """Return the classifier, and the numbers of threads of all parts."""
    # With a detector, the classifier gets fewer threads. Whether the model needs a detector is stated in its file. The
    # file is loaded with the threads for a detector first, because most models are of faces, and again without one.
    threads = plan_threads(options.threaded, options.threads, detects=True)
    classifier = Classifier(path, threads.classifier)
    # "none": each frame is one face, and no detector runs.
    detects = classifier.contract.subject == "face" and options.detector != "none"
    needed = plan_threads(options.threaded, options.threads, detects=detects)
    if needed == threads:
        return classifier, threads
    return Classifier(path, needed.classifier), needed


def _completed(options: StreamOptions, contract: Contract, model: Path) -> StreamOptions:
    """Return the options with the detector that the model needs, and the model's region unless another one is given.

    Raises:
        InputError: An option for faces is set for a model that classifies whole images, zones are combined with a
            region or with detector none, or the model returns features.
    """
    if contract.output.meaning == "features":
        raise InputError(f"model '{model}' returns features, no labels: teach it with 'edgekit teach'")
    given = options.changed(_OF_FACES)
    if contract.subject == "image" and given:
        raise InputError(
            f"model '{model}' classifies the whole image, and {', '.join(given)} would have no effect: leave it out"
        )
    if contract.subject == "image" and options.zones and options.region:
        raise InputError("--roi has no effect with --zone, because each zone is classified by itself: leave it out")
    requested = None if options.detector is None else str(options.detector)
    detector = needed_detector(contract.subject, requested, model)
    if contract.subject == "face" and options.zones and detector == "none":
        raise InputError("--zone needs a detector; with detector none every frame is a face")
    return replace(options, region=options.region or taught_region(contract), detector=detector)


def _mirrors(options: StreamOptions, contract: Contract, source: Source) -> bool:
    """Return whether crops are classified together with their mirror images.

    By default those of the detected faces of pictures are, because single pictures have no average over time. Whole
    images never are: left and right may differ in meaning.
    """
    if contract.subject != "face":
        return False
    if options.mirror is not None:  # the user has chosen
        return options.mirror
    is_picture = not source.live and source.fps is None
    return is_picture and options.detector != "none"


def _create_detector(options: StreamOptions, threads: int) -> Detector:
    """Return the detector that the options name; `threads` are those within one inference."""
    assert options.detector is not None
    return create_detector(
        str(options.detector),
        input_size_px=options.detector_size_px,
        intra_op_threads=threads,
        notify=options.notify,
    )


def _chooses_input_size(options: StreamOptions) -> bool:
    """Return whether the detector's input size follows from `min_face_px`."""
    return options.min_face_px > 0 and options.detector_size_px is None
