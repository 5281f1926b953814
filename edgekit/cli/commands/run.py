"""`edgekit run`: faces and their classes in images, videos, streams and cameras."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click

from edgekit.cli.config import config_options
from edgekit.cli.options import detector_options
from edgekit.cli.output import Output, common_options
from edgekit.cli.run.checks import check_run
from edgekit.cli.run.detection_options import (
    DetectionOptions,
    add_detection_options,
    open_stream,
    stream_values,
)
from edgekit.cli.run.input_options import (
    ALTERNATIVES,
    InputOptions,
    add_input_options,
    camera_settings,
)
from edgekit.cli.run.load_options import LoadOptions, add_load_options
from edgekit.cli.run.network_sinks import check_web
from edgekit.cli.run.output_options import (
    STDOUT,
    Outputs,
    add_output_options,
    recorder_of,
    results_folder,
)
from edgekit.cli.run.signals import StopSignals
from edgekit.cli.run.sinks import collect_sinks, exclusive_outputs, open_sinks, progress_sinks
from edgekit.cli.run.summary import print_summary, summary
from edgekit.cli.sections import SectionedCommand, section

# What --json prints if the run is stopped before it has begun.
_STOPPED = {"ended": "stopped", "frames": 0}


@click.command("run", cls=SectionedCommand, short_help="Detect faces and classify them, live or in files.")
@section(
    "Source",
    click.option(
        "--source",
        "source_uri",
        metavar="URI",
        help="Image, folder, 'pattern*.jpg', video file, rtsp:// or http:// stream, gst: pipeline, or `demo`.",
    ),
    click.option(
        "--camera",
        is_flag=False,
        flag_value="auto",
        metavar="[CAMERA]",
        help="Camera: auto, picamera2, picamera2:N, usb, /dev/videoN or N. Without a value: auto.",
    ),
    click.option("--max-frames", type=click.IntRange(1, 2**31), metavar="N", help="Stop after N frames."),
)
@add_input_options
@section(
    "Faces",
    click.option(
        "--model",
        default="default",
        show_default=True,
        metavar="MODEL",
        help="Classifier: an .onnx or .ncnn file, `default`, `fer2013` or `distilled`.",
    ),
    detector_options,
    add_detection_options,
)
@add_output_options
@section("Speed and load", add_load_options)
@section("Settings", config_options(ALTERNATIVES))
@common_options
def command(
    out: Output,
    source_uri: str | None,
    camera: str | None,
    max_frames: int | None,
    model: str,
    detector_name: str | None,
    detector_model: Path | None,
    detector_size: int | None,
    input_options: InputOptions,
    detection: DetectionOptions,
    outputs: Outputs,
    load: LoadOptions,
) -> None:
    """Detect, track and classify faces in the frames of a camera, file or stream, and measure the frame rate.

    A model that classifies whole images needs no detector. With such a model, each frame or the region of --roi gets
    one label.

    The run ends at the end of the source, after --max-frames, or after Ctrl-C or SIGTERM. After Ctrl-C or SIGTERM, the
    current frame is finished and all recorded results are kept.

    \b
    Examples:
      edgekit run --source demo --save demo.mp4
      edgekit run --camera --jsonl results.jsonl
      edgekit run --camera --largest --min-face 60 --roi 0,0.2,1,0.8
      edgekit run --camera picamera2 --camera-size 1280x720 --control ExposureTime=10000
      edgekit run --source holiday.mp4 --model mine.onnx --jsonl - | jq .faces
      edgekit run --source 'crops/*.png' --detector none --csv crops.csv
      edgekit run --camera --model door.onnx --roi 100,50,200,300 --web
      edgekit run --camera --web --mqtt mqtt://broker.local
      edgekit run --config edgekit.toml
    """
    check_run(click.get_current_context().params)

    with StopSignals(partial(out.result, _STOPPED)) as signals, ExitStack() as opened:
        opened.enter_context(exclusive_outputs(outputs))
        # Imports take seconds on a Pi, and signals are handled during them too.
        from edgekit.device.health.runtime_monitor import RuntimeMonitor
        from edgekit.device.pipeline.stream_options import StreamOptions
        from edgekit.device.pipeline.summary import Tally
        from edgekit.device.sink import accounts_of

        check_web(outputs)  # before a camera is opened
        recorder = recorder_of(outputs, out.warn)
        options = StreamOptions(
            source=source_uri,
            camera=camera,
            camera_settings=camera_settings(input_options, recorder),
            realtime=input_options.realtime,
            model=model,
            detector=detector_name,
            detector_model=detector_model,
            detector_size_px=detector_size,
            max_frames=max_frames,
            threads=load.threads,
            threaded=False if load.single_thread else None,
            **stream_values(detection),
        )
        stream = opened.enter_context(open_stream(options, out.warn))
        folder = results_folder(outputs)
        monitor = RuntimeMonitor(folder, load.max_temperature_c, stream.localizer, out.warn, live=stream.source.live)
        opened.enter_context(monitor)
        # With --jsonl - stdout has the results, and text goes to stderr.
        text = replace(out, as_json=True) if outputs.jsonl == STDOUT else out
        tally, finished = Tally(), False
        collecting = collect_sinks(outputs, stream.source, stream.classifier.contract, out.warn)
        sinks = [
            *open_sinks(outputs, stream, recorder, collecting, text.say, out.warn, monitor.health),
            tally,
            *progress_sinks(out, outputs, stream.source.frame_count, max_frames),
            *monitor.sinks(stream.controls),
        ]
        signals.on_stop(stream.stop)
        gc.freeze()  # garbage collections during the run do not examine the objects of the start
        try:
            stream.run(sinks, pace=monitor.paced, annotate=monitor.annotated)
            finished = True
        finally:
            # A run that fails late (a lost camera, a full disk) has results too.
            if stream.meter.frames or finished or signals.received:
                accounts = accounts_of(sinks)
                print_summary(text, stream, tally, monitor, model, collecting, accounts)
                settings = {"max_frames": max_frames, "single_thread": load.single_thread}
                settings |= asdict(input_options) | asdict(detection)
                out.result(summary(stream, tally, monitor, signals, finished, settings, collecting, accounts))
    signals.raise_interrupt()
