"""`edgekit run`: faces and their classes in pictures, videos, streams and cameras."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from edgekit.cli.config import config_options
from edgekit.cli.options import detector_options, threads_option
from edgekit.cli.output import Output, common_options
from edgekit.cli.progress import counted, progress_bar
from edgekit.cli.run.detection_options import (
    DetectionOptions,
    check_detection_options,
    chooses_input_size,
    chosen_region,
    create_face_tracker,
    detection_options,
)
from edgekit.cli.run.input_options import OF_CAMERAS, Capturing, capturing_options, check_capturing, open_input
from edgekit.cli.run.load_options import load_options
from edgekit.cli.run.output_options import STDOUT, Outputs, check_outputs, output_options, rotation_of
from edgekit.cli.run.signals import StopSignals
from edgekit.cli.run.sinks import open_sinks

if TYPE_CHECKING:
    from edgekit.device.detection import Detector
    from edgekit.device.detections import FrameResult
    from edgekit.device.engines.classifier import Classifier
    from edgekit.device.sources import Frame, Source


@click.command("run", short_help="Find faces and classify them, live or in files.")
@click.option(
    "--model",
    default="default",
    show_default=True,
    metavar="MODEL",
    help="An .onnx or .ncnn file, `default` or `distilled`.",
)
@click.option(
    "--source",
    "source_uri",
    metavar="URI",
    help="Picture, folder, 'pattern*.jpg', video file, rtsp:// or http:// stream, gst: pipeline, or `demo`.",
)
@click.option(
    "--camera",
    is_flag=False,
    flag_value="auto",
    metavar="[CAMERA]",
    help="auto (if no value follows), picamera2, picamera2:N, usb, /dev/videoN or N.",
)
@capturing_options
@detector_options
@detection_options
@threads_option
@click.option("--max-frames", type=click.IntRange(1, 2**31), metavar="N", help="Stop after N frames.")
@load_options
@output_options
@config_options({"source_uri": ("realtime",), "camera": (*OF_CAMERAS, "record")})
@common_options
def command(
    out: Output,
    model: str,
    source_uri: str | None,
    camera: str | None,
    detector_name: str,
    detector_model: Path | None,
    detector_size: int,
    threads: int | None,
    max_frames: int | None,
    capturing: Capturing,
    detection: DetectionOptions,
    outputs: Outputs,
    max_temperature_c: float | None,
) -> None:
    """Find the faces in every frame, classify each, and say how fast.

    Ends with the source, after --max-frames, or when told to: Ctrl-C and SIGTERM let the frame at hand finish, and
    what was recorded so far is kept.

    \b
    Examples:
      edgekit run --source demo --save demo.mp4
      edgekit run --camera --jsonl results.jsonl
      edgekit run --camera --largest --min-face 60 --roi 0,0.2,1,0.8
      edgekit run --camera picamera2 --camera-size 1280x720 --control ExposureTime=10000
      edgekit run --source holiday.mp4 --model mine.onnx --jsonl - | jq .faces
      edgekit run --source 'crops/*.png' --detector none --csv crops.csv
      edgekit run --camera --web --mqtt mqtt://broker.local
      edgekit run --config edgekit.toml
    """
    if (source_uri is None) == (camera is None):
        fault = "both --source and --camera are given" if source_uri is not None else "nothing to look at"
        raise click.UsageError(f"{fault}: write --source FILE, --source demo, or --camera")
    check_outputs(outputs, source_uri, out.as_json)
    check_capturing(capturing, camera)
    check_detection_options(detection, detector_name)

    stopped_early = partial(out.result, {"ended": "stopped", "frames": 0})
    with StopSignals(stopped_early) as signals, ExitStack() as opened:
        # Imports take seconds on a Pi: a signal must find its handler during them too.
        from edgekit.device.detection import create_detector
        from edgekit.device.engines.classifier import Classifier
        from edgekit.device.engines.versions import set_opencv_threads
        from edgekit.device.health.runtime_monitor import RuntimeMonitor
        from edgekit.device.pipeline.latency import LatencyMeter
        from edgekit.device.pipeline.loop import run
        from edgekit.device.pipeline.smoothing import Smoother
        from edgekit.device.pipeline.threads import plan_threads
        from edgekit.device.sinks.h264_recorder import Recording
        from edgekit.device.sinks.table import Tally, count_lines, rate_line, summary_document, summary_table
        from edgekit.device.sources import presentation_time_s
        from edgekit.model_store import DEVICE_SUFFIXES, resolve_model

        # With --jsonl - the lines own stdout: text for people goes to stderr.
        text = replace(out, as_json=True) if outputs.jsonl == STDOUT else out
        plan = plan_threads(False if detection.single_thread else None, threads)
        set_opencv_threads(plan.opencv)
        meter, tally, finished = LatencyMeter(), Tally(), False
        model_path = resolve_model(model, DEVICE_SUFFIXES)
        detector_px = None if chooses_input_size(detection) else detector_size
        region = chosen_region(detection)
        source = opened.enter_context(
            open_input(
                capturing,
                source_uri,
                camera,
                out.warn,
                detector_px=detector_px,
                min_face_px=detection.min_face,
                region=region,
                recording=None if outputs.record is None else Recording(outputs.record, rotation_of(outputs)),
            )
        )
        classifier = Classifier(model_path, plan.classifier, plan.spinning)
        detector = create_detector(
            detector_name,
            model_path=detector_model,
            input_size_px=detector_size,
            intra_op_threads=plan.detector,
            notify=out.warn,
        )
        face_tracker = create_face_tracker(detection, detector, source, region)
        monitor = opened.enter_context(RuntimeMonitor(Path.cwd(), max_temperature_c, face_tracker, out.warn))
        sinks = [
            *open_sinks(outputs, source, classifier.contract.labels, text.say, out.warn, health=monitor.health),
            tally,
        ]
        if source.frame_count is not None and outputs.jsonl != STDOUT:
            sinks.append(_Progress(out, min(source.frame_count, max_frames or source.frame_count)))
        sinks += monitor.sinks()
        signals.on_stop(source.stop)
        try:
            with ExitStack() as writing:
                for sink in sinks:
                    writing.enter_context(sink)
                run(
                    monitor.paced(source),
                    face_tracker,
                    classifier,
                    sinks,
                    meter,
                    max_frames,
                    smoother=Smoother(detection.smooth_s),
                    presentation_time_s=presentation_time_s(source),
                    threaded=plan.staged,
                    health=monitor.new_sample,
                )
            finished = True
        finally:
            # A run that fails late, its camera lost or its disk full, has results too; one that was told to stop
            # before its first has ended well.
            if meter.frames or finished or signals.terminated or signals.interrupted:
                ended = _ended(signals, finished)
                text.say(f"{source.name}: faces by {detector.name}, classes by {model}")
                text.say(rate_line(meter))
                text.console.print(summary_table(meter))
                text.say(count_lines(meter, tally))
                text.say(plan.describe())
                text.say(monitor.describe() or "health: nothing known")
                settings = {
                    "detector_size_px": face_tracker.input_size_px,
                    "max_frames": max_frames,
                    "threads": plan.as_document(),
                    **asdict(capturing),
                    **asdict(detection),
                }
                document = _document(ended, source, classifier, detector, settings) | summary_document(meter, tally)
                out.result(document | {"health": monitor.as_document()})
    if signals.interrupted:
        raise KeyboardInterrupt


class _Progress:
    """A sink that moves the progress bar."""

    def __init__(self, out: Output, total: int) -> None:
        self._bar = progress_bar(out)
        self._update = counted(self._bar, "frames")
        self._total = total
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def write(self, frame: Frame, result: FrameResult) -> None:
        del frame, result
        self._done += 1
        self._update(self._done, self._total)


def _ended(signals: StopSignals, finished: bool) -> str:
    if signals.interrupted:
        return "interrupted"
    if signals.terminated:
        return "stopped"
    return "finished" if finished else "failed"


def _document(
    ended: str, source: Source, classifier: Classifier, detector: Detector, settings: dict[str, Any]
) -> dict[str, Any]:
    from edgekit.device.engines.versions import versions

    return {
        "ended": ended,
        "source": source.name,
        "skipped": source.skipped,
        "model": {
            "path": str(classifier.path),
            "architecture": classifier.contract.architecture,
            "precision": classifier.contract.precision,
        },
        "detector": detector.name,
        "settings": settings,
        "versions": versions(),
    }
