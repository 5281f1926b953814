"""`edgekit run`: faces and their classes in pictures, videos, streams and cameras."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from edgekit.cli.capturing import Capturing, capturing_options, check_capturing, open_input
from edgekit.cli.common import Output, common_options
from edgekit.cli.finding import Finding, check_finding, create_finder, finding_options
from edgekit.cli.options import detector_options, threads_option
from edgekit.cli.progress import counted, progress_bar
from edgekit.cli.stopping import StopSignals

if TYPE_CHECKING:
    from edgekit.device.classify import Classifier
    from edgekit.device.detect import Detector
    from edgekit.device.results import FrameResult
    from edgekit.device.sinks import Sink
    from edgekit.device.sources import Frame, Source

_STDOUT = "-"


@click.command("run", short_help="Find faces and classify them, live or in files.")
@click.option(
    "--model", default="default", show_default=True, metavar="MODEL", help="An .onnx file, `default` or `distilled`."
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
@finding_options
@threads_option
@click.option("--save", type=click.Path(path_type=Path), metavar="MP4", help="Record a video with the faces drawn in.")
@click.option("--jsonl", metavar="FILE|-", help="Write one JSON object a frame; - is stdout.")
@click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write one row a face.")
@click.option("--show", is_flag=True, help="Show the frames in a window.")
@click.option(
    "--sink",
    "extra_sinks",
    multiple=True,
    metavar="NAME[:VALUE]",
    help="Give results to a sink that another package brings (docs/extending.md).",
)
@click.option("--max-frames", type=click.IntRange(1, 2**31), metavar="N", help="Stop after N frames.")
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
    save: Path | None,
    jsonl: str | None,
    csv_file: str | None,
    show: bool,
    max_frames: int | None,
    capturing: Capturing,
    finding: Finding,
    extra_sinks: tuple[str, ...],
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
    """
    _check_usage(out, source_uri, camera, save, jsonl, csv_file)
    check_capturing(capturing, camera)
    check_finding(finding, detector_name)

    with StopSignals() as signals, ExitStack() as opened:
        # Imports take seconds on a Pi: a signal must find its handler during them too.
        from edgekit.device.classify import Classifier
        from edgekit.device.detect import create_detector
        from edgekit.device.engines import set_opencv_threads
        from edgekit.device.meter import Meter
        from edgekit.device.pipeline import run
        from edgekit.device.sinks.table import Tally, summary_document, summary_table
        from edgekit.device.smooth import Smoother
        from edgekit.device.sources import picture_time
        from edgekit.device.threads import plan_threads
        from edgekit.modelfiles import ONNX_SUFFIX, resolve_model

        plan = plan_threads(False if finding.single_thread else None, threads)
        set_opencv_threads(plan.opencv)
        meter, tally, finished = Meter(), Tally(), False
        model_path = resolve_model(model, (ONNX_SUFFIX,))
        source = opened.enter_context(open_input(capturing, source_uri, camera, out.warn))
        classifier = Classifier(model_path, plan.classifier, plan.spinning)
        detector = create_detector(
            detector_name,
            model_path=detector_model,
            input_size_px=detector_size,
            intra_op_threads=plan.detector,
            notify=out.warn,
        )
        finder = create_finder(finding, detector, source)
        sinks = [
            *_sinks(source, classifier, save, jsonl, csv_file, show),
            *_extra_sinks(extra_sinks, source, classifier, out),
            tally,
        ]
        if source.frame_count is not None and jsonl != _STDOUT:
            sinks.append(_Progress(out, min(source.frame_count, max_frames or source.frame_count)))
        signals.on_stop(source.stop)
        try:
            with ExitStack() as writing:
                for sink in sinks:
                    writing.enter_context(sink)
                run(
                    source,
                    finder,
                    classifier,
                    sinks,
                    meter,
                    max_frames,
                    smoother=Smoother(finding.smooth_s),
                    picture_time=picture_time(source),
                    threaded=plan.staged,
                )
            finished = True
        finally:
            # A run that fails late, its camera lost or its disk full, has results too.
            if meter.frames:
                ended = _ended(signals, finished)
                # With --jsonl - the lines own stdout: text for people goes to stderr.
                text = replace(out, as_json=True) if jsonl == _STDOUT else out
                text.say(f"{source.name}: faces by {detector.name}, classes by {model}")
                text.console.print(summary_table(meter, tally))
                text.say(plan.describe())
                settings = {
                    "detector_size_px": finder.input_size_px,
                    "max_frames": max_frames,
                    "threads": plan.as_document(),
                    **asdict(capturing),
                    **asdict(finding),
                }
                out.result(_document(ended, source, classifier, detector, settings) | summary_document(meter, tally))
    if signals.interrupted:
        raise KeyboardInterrupt


def _check_usage(
    out: Output, source: str | None, camera: str | None, save: Path | None, jsonl: str | None, csv_file: str | None
) -> None:
    if (source is None) == (camera is None):
        fault = "both --source and --camera are given" if source is not None else "nothing to look at"
        raise click.UsageError(f"{fault}: write --source FILE, --source demo, or --camera")
    if out.as_json and jsonl == _STDOUT:
        raise click.UsageError("--json and --jsonl - both want stdout: give --jsonl a file, or leave --json out")
    if csv_file == _STDOUT:
        raise click.UsageError("--csv takes a file: for results on stdout write --jsonl -")
    places = [Path(name).resolve() for name in (save, jsonl, csv_file) if name is not None and name != _STDOUT]
    if len(set(places)) < len(places):
        raise click.UsageError("--save, --jsonl and --csv name the same file twice: give each its own")
    if source is not None and Path(source).resolve() in places:
        raise click.UsageError(f"'{source}' is the source and would be overwritten: write to another file")


def _sinks(
    source: Source, classifier: Classifier, save: Path | None, jsonl: str | None, csv_file: str | None, show: bool
) -> list[Sink]:
    sinks: list[Sink] = []
    if jsonl is not None:
        from edgekit.device.sinks.jsonl import JsonLinesSink

        sinks.append(JsonLinesSink(jsonl))
    if csv_file is not None:
        from edgekit.device.sinks.csv import CsvSink

        sinks.append(CsvSink(csv_file, classifier.contract.labels))
    if save is not None:
        from edgekit.device.sinks.video import VideoSink

        sinks.append(VideoSink(save, source.fps, source.live))
    if show:
        from edgekit.device.sinks.window import WindowSink

        sinks.append(WindowSink(source.stop))
    return sinks


def _extra_sinks(names: tuple[str, ...], source: Source, classifier: Classifier, out: Output) -> list[Sink]:
    from edgekit.device.registry import find
    from edgekit.device.sinks import SinkOptions

    sinks: list[Sink] = []
    for text in names:
        name, _, value = text.partition(":")
        options = SinkOptions(value, source.name, source.fps, classifier.contract.labels, out.warn)
        sinks.append(find("sink", name)(options))
    return sinks


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
    from edgekit.device.engines import versions

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
