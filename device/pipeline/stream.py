"""Results of a camera, video or folder of images, frame by frame: `edgekit.stream`.

import edgekit

with edgekit.stream(source="demo") as results:
    for result in results:
        print(result.sequence, result.faces.labels)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TypeAlias

import cv2

from edgekit.contract import Contract
from edgekit.device.controls import Controls
from edgekit.device.detection import DEFAULT_INPUT_SIZE_PX, Detector, create_detector, fixed_input_px, needed_detector
from edgekit.device.detections import FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import device_suffixes
from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.pipeline.latency import LatencyMeter
from edgekit.device.pipeline.loop import frame_results
from edgekit.device.pipeline.pictures import PictureRecogniser
from edgekit.device.pipeline.stream_options import StreamOptions
from edgekit.device.pipeline.threads import plan_threads
from edgekit.device.region import Region
from edgekit.device.registry import find
from edgekit.device.sink import Sink
from edgekit.device.sources import open_camera, open_source
from edgekit.device.sources.files import ImageSource
from edgekit.device.sources.settings import CameraSettings
from edgekit.device.tracking.detection_schedule import Adaptive, Every
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.device.tracking.localizer import Localizer, WholeImage
from edgekit.errors import InputError
from edgekit.model_store import resolve_model
from edgekit.options import takes

_Results: TypeAlias = Generator[tuple[Frame, FrameResult], None, None]

# Options without effect on a model of whole images.
_OF_FACES = (
    "detector_size_px", "detect_every", "tracker", "mirror", "min_face_px", "largest_only",
)  # fmt: skip


class Stream:
    """An iterator of `FrameResult`s, with the source and the nets it uses.

    The source is closed at the end of the iteration, at the end of a `with` block, and by `close`. OpenCV's number of
    threads is set for the whole process.

    Attributes:
        options: The options in effect, with the detector that the model needs.
        source: The opened source.
        classifier: The model; its contract has the stream's `uncertain_below`.
        localizer: The detector with its schedule and tracker, or `WholeImage`.
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
        model_path = resolve_model(str(options.model), device_suffixes(str(options.model)))
        self.controls = Controls()
        # The threads of most models, those of faces: only the loaded file states what it classifies.
        self.threads = plan_threads(options.threaded, options.threads)
        classifier = Classifier(model_path, self.threads.classifier)
        contract = classifier.contract
        detects = contract.subject == "face" and options.detector != "none"
        needed = plan_threads(options.threaded, options.threads, detects=detects)
        if needed != self.threads:
            self.threads = needed
            classifier = Classifier(model_path, needed.classifier)
        if options.uncertain_below is not None:
            contract = replace(contract, uncertain_below=options.uncertain_below)
        options = _completed(options, contract, model_path)
        self.classifier = classifier
        self.classifier.contract = contract
        self.options = options
        self._results = self._iterate()
        cv2.setNumThreads(self.threads.opencv)
        with ExitStack() as opened:
            self.source = opened.enter_context(_open(options))
            self.classifier.mirror = _mirrors(options, contract, self.source)
            self.localizer = create_localizer(
                contract, self.source, options, lambda: _create_detector(options, self.threads.detector)
            )
            self._opened = opened.pop_all()

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
        return next(self._results)[1]

    def with_frames(self) -> Iterator[tuple[Frame, FrameResult]]:
        """Return the iterator of frames with their results, for drawing: `frame.image_bgr` has the pixels."""
        return self._results

    def run(
        self,
        sinks: Sequence[Sink],
        *,
        pace: Callable[[Source], Source] = lambda source: source,
        annotate: Callable[[FrameResult], FrameResult] = lambda result: result,
    ) -> None:
        """Open the sinks and pass all results to them.

        Args:
            sinks: Consumers of the results.
            pace: Wraps the source, to lower its frame rate under load.
            annotate: Called for each result; what it returns is passed to the sinks.

        Raises:
            StorageError: A sink cannot write.
            SourceError, InputError: As `__next__`.
        """
        with self._opened, ExitStack() as opened:
            for sink in sinks:
                opened.enter_context(sink)
            results = opened.enter_context(closing(self._frame_results(pace(self.source), annotate)))
            for frame, result in results:
                for sink in sinks:
                    sink.write(frame, result)

    def picture_recogniser(self) -> PictureRecogniser:
        """Return a function for single pictures, with the stream's model and detector but without its region."""
        classifier, options = self.classifier, replace(self.options, region=None, min_face_px=0, detect_every="auto")
        pictures = ImageSource([], "pictures", options.notify)
        detector = partial(_create_detector, options, 1)

        def make_classifier() -> Classifier:
            made = Classifier(classifier.path, 1)
            made.contract = classifier.contract
            made.mirror = _mirrors(options, made.contract, pictures)
            return made

        return PictureRecogniser(
            make_classifier, partial(create_localizer, classifier.contract, pictures, options, detector)
        )

    def stop(self) -> None:
        """End the iteration before its next frame; may be called from a signal handler or another thread."""
        self.source.stop()
        self.controls.end()

    def close(self) -> None:
        """End the threads and close the source; a second call does nothing.

        Only the thread that iterates may call this method. Other threads call `stop` instead.
        """
        self._results.close()
        self._opened.close()

    def _iterate(self) -> _Results:
        with self._opened:
            yield from self._frame_results(self.source)

    def _frame_results(
        self, source: Source, annotate: Callable[[FrameResult], FrameResult] = lambda result: result
    ) -> _Results:
        return frame_results(
            source,
            self.localizer,
            self.classifier,
            self.meter,
            self.options.max_frames,
            smooth_s=self.options.smooth_s,
            classify_every=1 if self.options.every_frame else self.options.classify_every,
            presentation_time_s=presentation_time_s(source),
            threaded=self.threads.staged,
            annotate=annotate,
            controls=self.controls,
        )


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
    if (options.source is None) == (options.camera is None):
        raise InputError("a stream reads either a source or a camera: give one of source= and camera=")
    if options.source is not None:
        if options.camera_settings != CameraSettings():
            raise InputError("camera_settings are for cameras: leave them out, or give camera= instead of source=")
        return open_source(str(options.source), options.notify, realtime=options.realtime)
    if options.realtime:
        raise InputError("realtime is for recordings; a camera has its own frame rate: leave it out")
    settings = replace(
        options.camera_settings,
        detector_px=None if _chooses_input_size(options) else options.detector_size_px or DEFAULT_INPUT_SIZE_PX,
        min_face_px=options.min_face_px,
        region=options.region,
        detects=options.detector != "none",
    )
    return open_camera(options.camera or "", options.notify, settings)


def create_localizer(
    contract: Contract, source: Source, options: StreamOptions, make_detector: Callable[[], Detector]
) -> Localizer:
    """Return the localizer for the model of `contract` and the frames of `source`.

    For a model of faces this is a `FaceTracker` with the detection schedule and the tracker of `options`, for a model
    of whole images it is `WholeImage`.
    """
    if contract.subject == "image":
        return WholeImage(options.region, is_sequence=source.live or source.fps is not None)
    detector = make_detector()
    every = 1 if options.every_frame else options.detect_every
    schedule = Adaptive() if every == "auto" else Every(every)
    # Images without an order in time are not tracked: the detector runs on each of them.
    is_sequence = source.live or source.fps is not None or options.detect_every != "auto"
    tracks = detector.name != "none" and is_sequence
    return FaceTracker(
        detector,
        schedule if tracks else None,
        tracker=find("tracker", options.tracker)(),
        region=options.region,
        min_face_px=options.min_face_px,
        choose_input_size=_chooses_input_size(options) and fixed_input_px(detector) is None,
        largest_only=options.largest_only,
        presentation_time_s=presentation_time_s(source),
    )


def _completed(options: StreamOptions, contract: Contract, model: Path) -> StreamOptions:
    """Return the options with the detector that the model needs, and the model's region unless another one is given.

    Raises:
        InputError: An option for faces is set for a model that classifies whole images, or the model returns features.
    """
    if contract.output.meaning == "features":
        raise InputError(f"model '{model}' returns features, no labels: teach it with 'edgekit teach'")
    if contract.subject == "image" and (given := options.changed(_OF_FACES)):
        raise InputError(
            f"model '{model}' classifies the whole image, and {', '.join(given)} would have no effect: leave it out"
        )
    requested = None if options.detector is None else str(options.detector)
    region = options.region
    if region is None and contract.region is not None:
        x0, y0, x1, y1 = contract.region
        region = Region(x0, y0, x1 - x0, y1 - y0)
    return replace(options, region=region, detector=needed_detector(contract.subject, requested, model))


def _mirrors(options: StreamOptions, contract: Contract, source: Source) -> bool:
    """Return whether crops are classified together with their mirror images.

    By default those of the detected faces of pictures are, where nothing else averages. Whole images never are: their
    sides may matter.
    """
    is_picture = not source.live and source.fps is None
    mirrors = is_picture and options.detector != "none" if options.mirror is None else options.mirror
    return mirrors and contract.subject == "face"


def _create_detector(options: StreamOptions, threads: int) -> Detector:
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
