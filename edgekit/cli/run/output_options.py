"""Options of `edgekit run` for its outputs; `edgekit.cli.run.sinks` creates the sinks from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import section
from edgekit.cli.options import NumberRange, grouped_options, path_option
from edgekit.cli.param_types import CollectWhen, Commands, Duration, Size

if TYPE_CHECKING:
    from edgekit.device.sinks.h264_recorder import H264Recorder
    from edgekit.device.sinks.rotation import Rotation

STDOUT = "-"
# As in device/sinks/crop_folder.py, which imports OpenCV.
CROPS_FILE = "crops.jsonl"
# Smaller limits would give too many files to read.
_LEAST_ROTATION_BYTES = 10_000
_LEAST_ROTATION_S = 1.0


@dataclass(frozen=True)
class Outputs:
    """Values of the options for outputs; each field has the name of its option's parameter."""

    save: Path | None
    record: Path | None
    jsonl: str | None
    csv_file: str | None
    show: bool
    extra_sinks: tuple[str, ...]
    rotate_size: int | None
    rotate_age: float | None
    rotate_keep: int
    records: str
    disk_reserve: int | None
    blur_faces: bool
    draw_ids: bool
    collect: Path | None
    collect_when: str
    collect_max: int
    collect_max_mb: float
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
    mqtt_snapshot: bool
    mqtt_commands: str
    command_snapshots: Path | None
    command_snapshots_max: int
    command_snapshots_max_mb: float
    mqtt_command_snapshot: bool
    webhook: str | None
    webhook_token_file: Path | None
    webhook_snapshot: bool
    event_snapshots: Path | None
    event_snapshots_max: int
    event_snapshots_max_mb: float
    event_hold: float
    event_cooldown: float
    event_probability: float
    event_label: tuple[str, ...]


_RESULTS = section(
    "Results",
    path_option(
        "--save",
        "PATH",
        "Save the frames with drawn boxes and labels. For a video, PATH is an .mp4 file; for images, an image file "
        "or a folder.",
    ),
    path_option(
        "--record",
        "MP4",
        "Record the camera of a Pi without drawings. If the board has an H.264 encoder, this encoder is used.",
    ),
    click.option("--jsonl", metavar="FILE|-", help="Write one JSON object per frame; - is stdout."),
    click.option("--csv", "csv_file", type=click.Path(), metavar="FILE", help="Write one row per face."),
    click.option("--show/--no-show", default=False, help="Show the frames in a window."),
    click.option(
        "--sink",
        "extra_sinks",
        multiple=True,
        metavar="NAME[:VALUE]",
        help="Pass results to a sink of another package (docs/how-to/extending.md). Repeatable.",
    ),
    click.option(
        "--rotate-size",
        type=Size(_LEAST_ROTATION_BYTES),
        metavar="SIZE",
        help="Begin a new file of --jsonl, --csv, --save and --record at this size, such as 10MB.",
    ),
    click.option(
        "--rotate-age",
        type=Duration(_LEAST_ROTATION_S),
        metavar="TIME",
        help="Begin a new file of --jsonl, --csv, --save and --record after this time, such as 1h or 7d.",
    ),
    click.option(
        "--rotate-keep",
        type=click.IntRange(1, 10_000),
        default=5,
        show_default=True,
        metavar="N",
        help="Number of older files to keep.",
    ),
    click.option(
        "--records",
        type=click.Choice(["all", "changes"]),
        default="all",
        show_default=True,
        help="Frames with records in --jsonl and --csv. changes: frames in which faces or labels change, and one per "
        "second.",
    ),
    click.option(
        "--disk-reserve",
        type=Size(0),
        metavar="SIZE",
        help="Free space of the disk at which video stops; images stop at a half, records at a quarter of it. Default: "
        "5 % of the disk, at most 256 MiB.",
    ),
    click.option(
        "--blur-faces/--no-blur-faces",
        default=False,
        help="Make faces unrecognisable in --save, --web, --event-snapshots and --command-snapshots.",
    ),
    click.option(
        "--draw-ids/--no-draw-ids",
        default=False,
        help="Draw the number of each track in --save, --web, --show, --event-snapshots and --command-snapshots.",
    ),
)


def _folder_limits(option: str, count: int, number: str, what: str) -> tuple[Callable[..., Any], ...]:
    """Return OPTION-max, with the default `count`, and OPTION-max-mb: the limits of a folder of images."""
    most, sizes = click.IntRange(1, 1_000_000), NumberRange(0.001, 1_000_000)
    return (
        click.option(f"{option}-max", type=most, default=count, show_default=True, metavar="N", help=number),
        click.option(
            f"{option}-max-mb",
            type=sizes,
            default=200,
            show_default=True,
            metavar="MB",
            help=f"Largest total size of these {what}.",
        ),
    )


_COLLECTING = section(
    "Collecting",
    path_option("--collect", "DIR", "Save crops for labelling (edgekit data label DIR)."),
    click.option(
        "--collect-when",
        type=CollectWhen(),
        default="uncertain",
        show_default=True,
        metavar="STRATEGY",
        help="Crops to save. uncertain: the two largest probabilities differ by less than 0.3. uncertain:MARGIN: "
        "they differ by less than MARGIN. every:TIME: all faces of one frame per time, such as every:10s. "
        "best-of-track: one crop of each face.",
    ),
    *_folder_limits("--collect", 2000, "Largest number of crops in DIR that wait for labelling.", "crops"),
)

_WEB_PAGE = section(
    "Web page",
    click.option(
        "--web",
        is_flag=False,
        flag_value="127.0.0.1:8080",
        metavar="[ADDR]",
        help="Serve a web page with the frames at HOST:PORT; without a value: 127.0.0.1:8080.",
    ),
    path_option(
        "--web-token-file",
        "FILE",
        "File with the access token of the page. EDGEKIT_WEB_TOKEN can contain the token instead. Viewers on other "
        "machines need the token.",
    ),
    click.option(
        "--web-fps",
        type=NumberRange(0.1, 60),
        default=10,
        show_default=True,
        metavar="FPS",
        help="Highest frame rate of the page.",
    ),
)

_MQTT = section(
    "MQTT",
    click.option("--mqtt", metavar="URL", help="Publish to a broker: mqtt://HOST[:PORT], or mqtts:// for TLS."),
    path_option(
        "--mqtt-credentials",
        "FILE",
        "File with user:password. EDGEKIT_MQTT_CREDENTIALS can contain user:password instead.",
    ),
    click.option("--mqtt-topic", metavar="TOPIC", help="Prefix of the topics; default: edgekit/HOSTNAME."),
    path_option("--mqtt-ca", "PEM", "Certificate authorities to trust instead of the system's."),
    path_option("--mqtt-cert", "PEM", "Client certificate."),
    path_option("--mqtt-key", "PEM", "Private key of the client certificate."),
    click.option(
        "--mqtt-discovery/--no-mqtt-discovery",
        default=True,
        show_default=True,
        help="Announce the camera to Home Assistant.",
    ),
    path_option(
        "--mqtt-buffer",
        "FILE",
        "File in which events wait until the broker has confirmed them. Default: a file in the user's state folder.",
    ),
    click.option(
        "--mqtt-buffer-events",
        type=click.IntRange(1, 100_000),
        default=10_000,
        show_default=True,
        metavar="N",
        help="Largest number of buffered events. If there are more, the oldest events are discarded.",
    ),
    click.option(
        "--mqtt-snapshot/--no-mqtt-snapshot",
        default=False,
        help="Publish the newest image of --event-snapshots as a retained message; Home Assistant shows it.",
    ),
    click.option(
        "--mqtt-commands",
        type=Commands(),
        default="",
        metavar="LIST",
        help="Commands to accept, separated by commas: pause (and resume), snapshot. Default: none.",
    ),
    path_option("--command-snapshots", "DIR", "Folder for the images that the command snapshot saves."),
    *_folder_limits(
        "--command-snapshots",
        100,
        "Largest number of images in DIR. If there are more, the oldest images are deleted.",
        "images",
    ),
    click.option(
        "--mqtt-command-snapshot/--no-mqtt-command-snapshot",
        default=False,
        help="Publish the newest image of --command-snapshots as a retained message; Home Assistant shows it.",
    ),
)

_EVENTS = section(
    "Events",
    click.option("--webhook", metavar="URL", help="Post events to this address as JSON."),
    path_option(
        "--webhook-token-file",
        "FILE",
        "File with the bearer token. EDGEKIT_WEBHOOK_TOKEN can contain the token instead.",
    ),
    click.option(
        "--webhook-snapshot/--no-webhook-snapshot",
        default=False,
        help="Post each event with its image of --event-snapshots, in base64.",
    ),
    path_option("--event-snapshots", "DIR", "Save the frame of each event as JPEG."),
    *_folder_limits(
        "--event-snapshots",
        1000,
        "Largest number of images in DIR. If there are more, the oldest images are deleted.",
        "images",
    ),
    click.option(
        "--event-hold",
        type=Duration(),
        default="1s",
        show_default=True,
        metavar="TIME",
        help="Time that a label must persist to become an event.",
    ),
    click.option(
        "--event-cooldown",
        type=Duration(),
        default="0s",
        show_default=True,
        metavar="TIME",
        help="Shortest time between two events of one face.",
    ),
    click.option(
        "--event-probability",
        type=NumberRange(0, 1),
        default=0,
        show_default=True,
        metavar="P",
        help="Smallest probability of a label for events.",
    ),
    click.option("--event-label", multiple=True, metavar="LABEL", help="Send events of this label only. Repeatable."),
)

# Adds these options to a command, which gets their values as the parameter `outputs`.
add_output_options = grouped_options("outputs", Outputs, (_RESULTS, _COLLECTING, _WEB_PAGE, _MQTT, _EVENTS))


def rotation_of(outputs: Outputs) -> Rotation:
    """Return the rotation settings: when a new file starts, and how many files are kept."""
    from edgekit.device.sinks.rotation import Rotation

    return Rotation(outputs.rotate_size, outputs.rotate_age, outputs.rotate_keep)


def output_files(outputs: Outputs) -> list[Path]:
    """Return the files to which one run only may write, without stdout and folders of images."""
    crops = None if outputs.collect is None else outputs.collect / CROPS_FILE
    names = (outputs.save, outputs.record, outputs.jsonl, outputs.csv_file, crops)
    return [Path(name) for name in names if name is not None and name != STDOUT]


def results_folder(outputs: Outputs) -> Path:
    """Return an existing folder on the disk of the results; of several disks, the one with the least free space.

    Without files it is the working folder.
    """
    from edgekit.device.sinks.rotation import free_bytes

    folders = (outputs.event_snapshots, outputs.command_snapshots)
    paths = [path.absolute() for path in (*output_files(outputs), *folders) if path is not None]
    fullest = min(paths, key=free_bytes, default=Path.cwd())
    return next(folder for folder in (fullest, *fullest.parents) if os.path.isdir(folder))  # noqa: PTH112 - no error


def allowed_commands(outputs: Outputs) -> frozenset[str]:
    """Return the commands of --mqtt-commands; empty without --mqtt."""
    return frozenset(outputs.mqtt_commands.split(",")) - {""} if outputs.mqtt is not None else frozenset()


def recorder_of(outputs: Outputs, notify: Callable[[str], None]) -> H264Recorder | None:
    """Return the recorder of the camera's own H.264 video; None without --record."""
    if outputs.record is None:
        return None
    from edgekit.device.sinks.disk_reserve import VIDEO, DiskReserve
    from edgekit.device.sinks.h264_recorder import H264Recorder

    reserve = DiskReserve(outputs.record, VIDEO, outputs.disk_reserve, f"recording to '{outputs.record}'", notify)
    return H264Recorder(outputs.record, rotation_of(outputs), notify, is_disk_low=reserve.is_low)
