"""`edgekit run`: faces and their classes in images, videos, streams and cameras."""

from __future__ import annotations

from typing import ClassVar

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.settings import SettingsCommand
from edgekit.device.pipeline import StreamOptions
from edgekit.device.sink import SinkOptions
from edgekit.device.sinks.outputs import option_of, other_sink_options, own_sink_options
from edgekit.device.sinks.teach import TeachTabOptions
from edgekit.device.sources.settings import CameraSettings
from edgekit.text import printable


class _RunCommand(SettingsCommand):
    replaced: ClassVar = {
        "as-fast-as-possible": "--no-realtime replaces it",
        "every-face": "--no-largest replaces it",
        "threaded": "leave it out",
        "event-probability": "--uncertain-below replaces it",
        "mqtt-buffer": "the file is in the state folder, STATE_DIRECTORY",
        "mqtt-buffer-events": "the buffer holds 10,000 events",
        "mqtt-key": "the file of --mqtt-cert contains certificate and key",
        "rotate-age": "--rotate-files 1d replaces it",
        "rotate-keep": "--rotate-files 10MB,keep=5 replaces it",
        "rotate-size": "--rotate-files 10MB replaces it",
        "sink": "a sink of another package has options of its own",
        "web-fps": "the page shows at most 10 frames per second",
        "camera-buffers": "the number of buffers follows from the camera",
        "camera-format": "--control format=MJPG replaces it",
        "detect-every": "--every-frame replaces the value 1; leave out other values",
        "detector-model": "--detector FILE.onnx replaces it",
        "detector-size": "--min-face replaces it, the smallest face in pixels",
        "max-temperature": "the board's own limit is used",
        "single-thread": "leave it out",
        "tracker": "edgekit.stream(tracker=...) chooses another tracker",
    }
    _is_complete = False
    allow_extra_args = True  # `parse_args` reports them, with the cure

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; further words are an error, usually the files of a pattern without quotes."""
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:  # resilient: the shell completes the command line
            cure = "give the source with --source, and a pattern in quotes: --source 'pictures/*.png'"
            raise click.UsageError(f"unexpected argument '{printable(rest[0])}': {cure}", ctx)
        return rest

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

    A model of whole images needs no detector: each frame, or its region of --roi, gets one label.

    The run ends with the source, after --max-frames, or with Ctrl-C. All results until then are kept.

    \b
    Examples:
      edgekit run --source demo --save demo.mp4
      edgekit run --camera --jsonl results.jsonl
      edgekit run --camera --largest --min-face 60 --roi 0,0.2,1,0.8
      edgekit run --camera picamera2 --camera-size 1280x720 --control ExposureTime=10000
      edgekit run --source holiday.mp4 --model mine.onnx --jsonl - | jq .faces
      edgekit run --source 'crops/*.png' --detector none --csv crops.csv
      edgekit run --camera --model door.onnx --roi 100,50,200,300 --web
      edgekit run --source demo --realtime --web
      edgekit run --camera --web --mqtt mqtt://broker.local
      edgekit run --config edgekit.toml
    """
    if stream_options.source is None and stream_options.camera is None:
        raise click.UsageError("no source is given: write --source FILE, --source demo, or --camera")
    from edgekit.cli.run_stream import run_stream

    # The file of the model that the page teaches; None without --teach.
    taught = option_of(outputs, TeachTabOptions).taught_file(stream_options.model)
    run_stream(out, stream_options, camera, outputs, taught)
