"""Where `edgekit run` sends its results: the options, and what they may not be; `edgekit.cli.run.sinks` acts on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import NumberRange, grouped_options, path_option
from edgekit.cli.param_types import Duration, Size

if TYPE_CHECKING:
    from edgekit.device.sinks.rotation import Rotation

STDOUT = "-"
# Less than a few thousand lines a file makes more files than anyone reads.
_LEAST_ROTATION_BYTES = 10_000
_LEAST_ROTATION_S = 1.0


@dataclass(frozen=True)
class Outputs:
    """The values of all output options, under their parameters' names."""

    save: Path | None
    record: Path | None
    jsonl: str | None
    csv_file: str | None
    show: bool
    extra_sinks: tuple[str, ...]
    rotate_size: int | None
    rotate_age: float | None
    rotate_keep: int
    blur_faces: bool
    web: str | None
    web_token_file: Path | None
    web_fps: float
    mqtt: str | None
    mqtt_credentials: Path | None
    mqtt_topic: str | None
    mqtt_ca: Path | None
    mqtt_cert: Path | None
    mqtt_key: Path | None
    mqtt_discovery: bool
    mqtt_buffer: Path | None
    mqtt_buffer_events: int
    webhook: str | None
    webhook_token_file: Path | None
    event_hold: float
    event_cooldown: float
    event_probability: float
    event_label: tuple[str, ...]


_OPTIONS = (
    path_option("--save", "MP4", "Record a video with the faces drawn in."),
    path_option("--record", "MP4", "Record a Pi's camera as it is, by the board's H.264 encoder where it has one."),
    click.option("--jsonl", metavar="FILE|-", help="Write one JSON object a frame; - is stdout."),
    click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write one row a face."),
    click.option("--show/--no-show", default=False, help="Show the frames in a window."),
    click.option(
        "--sink",
        "extra_sinks",
        multiple=True,
        metavar="NAME[:VALUE]",
        help="Give results to a sink that another package brings (docs/extending.md).",
    ),
    click.option(
        "--rotate-size",
        type=Size(_LEAST_ROTATION_BYTES),
        metavar="SIZE",
        help="Begin a new file of --jsonl, --csv, --save, --record after 10MB, say.",
    ),
    click.option(
        "--rotate-age", type=Duration(_LEAST_ROTATION_S), metavar="TIME", help="The same after 1h or 7d, say."
    ),
    click.option(
        "--rotate-keep",
        type=click.IntRange(1, 10_000),
        default=5,
        show_default=True,
        metavar="N",
        help="How many older files to keep.",
    ),
    click.option("--blur-faces/--no-blur-faces", default=False, help="Make faces unrecognisable in --save and --web."),
    click.option(
        "--web",
        is_flag=False,
        flag_value="127.0.0.1:8080",
        metavar="[ADDR]",
        help="Show the run on a web page at HOST:PORT; without a value 127.0.0.1:8080.",
    ),
    path_option(
        "--web-token-file",
        "FILE",
        "Holds what viewers must know, also EDGEKIT_WEB_TOKEN; needed beyond this machine.",
    ),
    click.option(
        "--web-fps",
        type=NumberRange(0.1, 60),
        default=10,
        show_default=True,
        help="Most pictures a second that the page gets.",
    ),
    click.option("--mqtt", metavar="URL", help="Send to a broker: mqtt://HOST[:PORT], or mqtts:// for TLS."),
    path_option("--mqtt-credentials", "FILE", "Holds user:password, also EDGEKIT_MQTT_CREDENTIALS."),
    click.option("--mqtt-topic", metavar="TOPIC", help="Topics begin with it; default: edgekit/ and the host's name."),
    path_option("--mqtt-ca", "PEM", "Trust these authorities instead of the system's."),
    path_option("--mqtt-cert", "PEM", "Show the broker this certificate."),
    path_option("--mqtt-key", "PEM", "The certificate's key."),
    click.option(
        "--mqtt-discovery/--no-mqtt-discovery",
        default=True,
        show_default=True,
        help="Announce the camera to Home Assistant.",
    ),
    path_option("--mqtt-buffer", "FILE", "Events wait here for the broker; default: in the user's state folder."),
    click.option(
        "--mqtt-buffer-events",
        type=click.IntRange(1, 10_000_000),
        default=10_000,
        show_default=True,
        metavar="N",
        help="Most events that wait; the oldest make room.",
    ),
    click.option("--webhook", metavar="URL", help="Post events to this address as JSON."),
    path_option("--webhook-token-file", "FILE", "Holds the bearer token to send with, also EDGEKIT_WEBHOOK_TOKEN."),
    click.option(
        "--event-hold",
        type=Duration(),
        default="1s",
        show_default=True,
        metavar="TIME",
        help="A label is an event once it held this long.",
    ),
    click.option(
        "--event-cooldown",
        type=Duration(),
        default="0s",
        show_default=True,
        metavar="TIME",
        help="Least time between two events of a face.",
    ),
    click.option(
        "--event-probability",
        type=NumberRange(0, 1),
        default=0,
        show_default=True,
        help="Least probability of a label that counts.",
    ),
    click.option(
        "--event-label", multiple=True, metavar="LABEL", help="Only this label makes events; may be repeated."
    ),
)


def rotation_of(outputs: Outputs) -> Rotation:
    """Return when a new file begins, and how many stay."""
    from edgekit.device.sinks.rotation import Rotation

    return Rotation(outputs.rotate_size, outputs.rotate_age, outputs.rotate_keep)


# Add all output options to a command, which gets their values as one `outputs`.
output_options = grouped_options("outputs", Outputs, _OPTIONS)


def check_outputs(outputs: Outputs, source: str | None, as_json: bool) -> None:
    """Look at the options before anything heavy is loaded.

    Raises:
        click.UsageError: Two of them want the same place or exclude each other, or one has no use without another.
    """
    if as_json and outputs.jsonl == STDOUT:
        raise click.UsageError("--json and --jsonl - both want stdout: give --jsonl a file, or leave --json out")
    if outputs.csv_file == STDOUT:
        raise click.UsageError("--csv takes a file: for results on stdout write --jsonl -")
    named = (outputs.save, outputs.record, outputs.jsonl, outputs.csv_file)
    places = [Path(name).resolve() for name in named if name is not None and name != STDOUT]
    if len(set(places)) < len(places):
        raise click.UsageError("--save, --record, --jsonl and --csv name the same file twice: give each its own")
    if source is not None and Path(source).resolve() in places:
        raise click.UsageError(f"'{source}' is the source and would be overwritten: write to another file")
    if outputs.record is not None and source is not None:
        raise click.UsageError("--record is for a Raspberry Pi's camera: use --save, or --camera")
    if outputs.record is not None and outputs.blur_faces:
        raise click.UsageError("--record shows faces as they are: leave out --record or --blur-faces")
    if (outputs.mqtt_cert is None) != (outputs.mqtt_key is None):
        raise click.UsageError("--mqtt-cert and --mqtt-key belong together: give both")
    _refuse_idle(outputs)


# Options that begin so mean something only beside one of the outputs named after them.
_BESIDE = {
    "rotate_": ("save", "record", "jsonl", "csv_file"),
    "blur_": ("save", "web"),
    "web_": ("web",),
    "mqtt_": ("mqtt",),
    "webhook_": ("webhook",),
    "event_": ("mqtt", "webhook", "web"),
}


def _refuse_idle(outputs: Outputs) -> None:
    """Refuse what was typed and would do nothing; a file of settings may hold more than one run uses.

    Raises:
        click.UsageError: There is such an option.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name, flag in flags.items():
        if name is None or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        for start, wanted in _BESIDE.items():
            if name.startswith(start) and not any(getattr(outputs, other) for other in wanted):
                places = ", ".join(flags[other] for other in wanted)
                raise click.UsageError(f"{flag} does nothing without {places}: give one, or leave it out")
