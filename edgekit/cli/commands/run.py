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
from edgekit.cli.render.run import print_summary, progress_sinks, summary
from edgekit.cli.settings import SettingsCommand
from edgekit.cli.signals import StopSignals
from edgekit.device.pipeline.stream_options import StreamOptions
from edgekit.device.sink import STDOUT, SinkOptions
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.output_options import OutputOptions
from edgekit.device.sinks.outputs import (
    check_outputs,
    lock_outputs,
    open_recorder,
    open_sinks,
    option_of,
    other_sink_options,
    own_sink_options,
    results_folder,
    run_context,
)
from edgekit.device.sources.settings import CameraSettings

# What --json prints if the run is stopped before it has begun.
_STOPPED = {"ended": "stopped", "frames": 0}


class _RunCommand(SettingsCommand):
    replaced: ClassVar = {
        "event-probability": "write uncertain-below",
        "mqtt-buffer": "the file is in the state folder, STATE_DIRECTORY",
        "mqtt-buffer-events": "the buffer holds 10,000 events",
        "mqtt-key": "write mqtt-cert, a file with certificate and key",
        "rotate-age": 'write rotate-files = "1d"',
        "rotate-size": 'write rotate-files = "10MB"',
        "sink": "a sink of another package has options of its own",
        "web-fps": "the page shows at most 10 frames per second",
        "camera-buffers": "the number of buffers follows from the camera",
        "camera-format": 'write control = ["format=MJPG"]',
        "detect-every": "write every-frame = true, or leave it out",
        "detector-model": 'write detector = "FILE.onnx"',
        "detector-size": "write min-face, the smallest face in pixels",
        "max-temperature": "the board's own limit is used",
        "single-thread": "leave it out",
        "tracker": "edgekit.stream(tracker=...) chooses another tracker",
    }
    _is_complete = False

    def complete(self) -> None:
        """Add the options of sinks of other packages; finding the packages takes 30 ms on a PC."""
        if not self._is_complete:
            self._is_complete = True
            self.extend("outputs", other_sink_options())


@edgekit_command(
    "run",
    short_help="Detect faces and classify them, live or in files.",
    cls=_RunCommand,
    stream_options=StreamOptions,
    camera=CameraSettings,
    outputs=own_sink_options(),
)
def command(
    out: Output, stream_options: StreamOptions, camera: CameraSettings, outputs: tuple[SinkOptions, ...]
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
    if stream_options.source is None and stream_options.camera is None:
        raise click.UsageError("no source is given: write --source FILE, --source demo, or --camera")
    is_on_stdout = option_of(outputs, JsonLinesOptions).jsonl == STDOUT
    if out.as_json and is_on_stdout:
        raise click.UsageError("--json and --jsonl - both write to stdout: give --jsonl a file, or leave --json out")
    check_outputs(outputs, stream_options.source)
    with StopSignals(partial(out.result, _STOPPED)) as signals, ExitStack() as opened:
        opened.enter_context(lock_outputs(outputs))
        # Imports take seconds on a Pi, and signals are handled during them too.
        from edgekit.device.health.runtime_monitor import RuntimeMonitor
        from edgekit.device.pipeline.stream import Stream
        from edgekit.device.pipeline.summary import Tally
        from edgekit.device.sinks.context import OutputContext

        context = OutputContext(rules=option_of(outputs, OutputOptions), notify=out.warn)
        recorder = open_recorder(outputs, context)
        options = replace(stream_options, camera_settings=replace(camera, recording=recorder), notify=out.warn)
        stream = opened.enter_context(Stream(options))
        monitor = RuntimeMonitor(results_folder(outputs), stream.localizer, out.warn, live=stream.source.live)
        opened.enter_context(monitor)
        # With --jsonl - stdout has the results, and text goes to stderr.
        text = replace(out, as_json=True) if is_on_stdout else out
        tally, finished = Tally(), False
        sinks = [
            *open_sinks(outputs, run_context(context, stream, monitor.health, recorder, text.say)),
            tally,
            *([] if is_on_stdout else progress_sinks(out, stream.source.frame_count, options.max_frames)),
            *monitor.sinks(stream.controls),
        ]
        signals.on_stop(stream.stop)
        gc.freeze()  # garbage collections during the run do not examine the objects of the start
        try:
            stream.run(sinks, annotate=monitor.annotated)
            finished = True
        finally:
            # A run that fails late (a lost camera, a full disk) has results too.
            if stream.meter.frames or finished or signals.received:
                print_summary(text, stream, tally, monitor, context.accounts)
                out.result(summary(stream, tally, monitor, signals, finished, context.accounts))
    signals.raise_interrupt()
