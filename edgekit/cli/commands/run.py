"""`edgekit run`: faces and their classes in images, videos, streams and cameras."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import ClassVar

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.run.network_sinks import check_web
from edgekit.cli.run.output_options import STDOUT, Outputs, add_output_options, recorder_of, results_folder
from edgekit.cli.run.signals import StopSignals
from edgekit.cli.run.sinks import collect_sinks, exclusive_outputs, open_sinks, progress_sinks
from edgekit.cli.run.summary import print_summary, summary
from edgekit.cli.settings import SettingsCommand
from edgekit.device.pipeline.stream_options import StreamOptions
from edgekit.device.sources.settings import CameraSettings

# What --json prints if the run is stopped before it has begun.
_STOPPED = {"ended": "stopped", "frames": 0}


class _RunCommand(SettingsCommand):
    replaced: ClassVar = {
        "camera-buffers": "the number of buffers follows from the camera",
        "camera-format": 'write control = ["format=MJPG"]',
        "classify-every": "write every-frame = true, or leave it out",
        "detect-every": "write every-frame = true, or leave it out",
        "detector-model": 'write detector = "FILE.onnx"',
        "detector-size": "write min-face, the smallest face in pixels",
        "max-temperature": "the board's own limit is used",
        "mirror": "pictures are always mirrored, videos never",
        "single-thread": "leave it out",
        "tracker": "edgekit.stream(tracker=...) chooses another tracker",
    }


@edgekit_command(
    "run",
    short_help="Detect faces and classify them, live or in files.",
    cls=_RunCommand,
    stream_options=StreamOptions,
    camera=CameraSettings,
)
@add_output_options
def command(out: Output, stream_options: StreamOptions, camera: CameraSettings, outputs: Outputs) -> None:
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
    if stream_options.source is None and stream_options.camera is None:
        raise click.UsageError("no source is given: write --source FILE, --source demo, or --camera")
    with StopSignals(partial(out.result, _STOPPED)) as signals, ExitStack() as opened:
        opened.enter_context(exclusive_outputs(outputs))
        # Imports take seconds on a Pi, and signals are handled during them too.
        from edgekit.device.health.runtime_monitor import RuntimeMonitor
        from edgekit.device.pipeline.stream import Stream
        from edgekit.device.pipeline.summary import Tally
        from edgekit.device.sink import accounts_of

        check_web(outputs)  # before a camera is opened
        recorder = recorder_of(outputs, out.warn)
        options = replace(stream_options, camera_settings=replace(camera, recording=recorder), notify=out.warn)
        stream = opened.enter_context(Stream(options))
        folder = results_folder(outputs)
        monitor = RuntimeMonitor(folder, stream.localizer, out.warn, live=stream.source.live)
        opened.enter_context(monitor)
        # With --jsonl - stdout has the results, and text goes to stderr.
        text = replace(out, as_json=True) if outputs.jsonl == STDOUT else out
        tally, finished = Tally(), False
        collecting = collect_sinks(outputs, stream.source, stream.classifier.contract, out.warn)
        sinks = [
            *open_sinks(outputs, stream, recorder, collecting, text.say, out.warn, monitor.health),
            tally,
            *progress_sinks(out, outputs, stream.source.frame_count, options.max_frames),
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
                print_summary(text, stream, tally, monitor, collecting, accounts)
                out.result(summary(stream, tally, monitor, signals, finished, collecting, accounts))
    signals.raise_interrupt()
