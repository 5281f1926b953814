"""All outputs of a run: the options they share; checked, locked and opened from their options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from edgekit.device.registry import find, names, own_names
from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError, StorageError
from edgekit.files import check_mounted, check_writable, exclusive_file, real_path
from edgekit.options import option, parse_bytes

if TYPE_CHECKING:
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.sinks.clips import PacketTap
    from edgekit.device.sinks.context import OutputContext, RunContext
    from edgekit.device.sinks.file_series import Rotation
    from edgekit.device.sinks.monitor import ReadHealth
    from edgekit.device.sinks.record import H264Recorder
    from edgekit.device.teach.taught_file import TaughtFile


_FILES = ("--jsonl", "--csv", "--save", "--record")
_PICTURES = ("--event-snapshots", "--event-clips", "--collect", "--teach")


def _limits(text: str) -> str:
    from edgekit.device.sinks.file_series import parse_limits

    parse_limits(text)
    return text


@dataclass(frozen=True, kw_only=True)
class OutputOptions(SinkOptions):
    """Options that several outputs share."""

    title = "Results"

    rotate_files: str | None = option(
        "--rotate-files",
        "Begin a new file of --jsonl, --csv, --save and --record at this size or after this time: 10MB, 1d or "
        "10MB,1d. Five older files are kept; with 10MB,keep=20, twenty.",
        metavar="LIMITS",
        parse=_limits,
        needs=_FILES,
    )
    blur_faces: bool = option(
        "--blur-faces",
        "Make faces unrecognisable in --save, --publish, --web, --event-snapshots and --event-clips.",
        default=False,
        needs=("--save", "--publish", "--web", "--event-snapshots", "--event-clips"),
    )
    records: Literal["all", "changes"] = option(
        "--records",
        "all: --jsonl and --csv get a record of every frame. changes: of frames in which faces or labels have "
        "changed, and of one frame per second.",
        default="all",
        needs=("--jsonl", "--csv"),
    )
    disk_reserve: int | None = option(
        "--disk-reserve",
        "Free space that a live run leaves on the disk. If less is free, videos pause; at half of this space, also "
        "pictures; at a quarter, also records. Default: 5 % of the disk, at most 256MiB.",
        metavar="SIZE",
        parse=parse_bytes,
        needs=(*_FILES, *_PICTURES),
    )
    pictures_max_mb: float = option(
        "--pictures-max-mb",
        "Largest size of each folder of pictures or clips, in megabytes. In a full folder, --event-snapshots and "
        "--event-clips delete their oldest files; --collect and --teach save no more.",
        default=200.0,
        least=0.001,
        most=1_000_000,
        metavar="MB",
        needs=_PICTURES,
    )

    @property
    def pictures_max_bytes(self) -> int:
        """Largest size of each folder of pictures or clips."""
        return round(self.pictures_max_mb * 1e6)

    @property
    def rotation(self) -> Rotation:
        """When a new file begins, and how many older ones are kept."""
        from edgekit.device.sinks.file_series import Rotation, parse_limits

        return parse_limits(self.rotate_files) if self.rotate_files else Rotation()


_Kind = TypeVar("_Kind", bound=SinkOptions)

# A folder is locked by the lock of a file of this name in it, which is never written.
_FOLDER_LOCK = "snapshots"


def own_sink_options() -> tuple[type[SinkOptions], ...]:
    """Return the classes of options of the built-in sinks."""
    return tuple(find("sink", name) for name in own_names("sink"))  # type: ignore[misc]


def other_sink_options() -> tuple[type[SinkOptions], ...]:
    """Return the classes of options of the sinks of other packages.

    Raises:
        InputError: As `find`, or the entry point of another package is no such class.
    """
    found = []
    for name in sorted(set(names("sink")) - set(own_names("sink"))):
        kind = find("sink", name)
        if not isinstance(kind, type) or not issubclass(kind, SinkOptions):
            raise InputError(f"sink '{name}' is not a class of options: its package is for another version of edgekit")
        found.append(kind)
    return tuple(found)


def option_of(options: Iterable[SinkOptions], kind: type[_Kind]) -> _Kind:
    """Return the options of one class; its defaults if they are not among `options`."""
    return next((each for each in options if isinstance(each, kind)), None) or kind()


def check_outputs(options: Sequence[SinkOptions], source: str | Path | None = None) -> None:
    """Check that no output overwrites another one, or the source.

    Raises:
        InputError: Two outputs have the same file or folder, or the source is the file of an output.
    """
    from edgekit.device.sinks.file_series import is_older_name

    files = [real_path(path) for each in options for path in each.files()]
    folders = [real_path(path) for each in options for path in each.folders()]
    for kind, paths in (("file", files), ("folder", folders)):
        for path in paths:
            if paths.count(path) > 1:
                raise InputError(f"'{path}' is the {kind} of two outputs: give each its own")
    # A rotation renames `door.mp4` to `door.1.mp4`: neither an output nor the source may have such a name.
    rotated = files if option_of(options, OutputOptions).rotation.active else []
    for output in rotated:
        for path in files:
            if is_older_name(path, output):
                raise InputError(f"'{path}' is the name of an older file of '{output}': choose another name")
    original = None if source is None else real_path(Path(source))
    if original is not None and (original in files or any(is_older_name(original, output) for output in rotated)):
        raise InputError(f"'{source}' is the source and would be overwritten: write to another file")


@contextmanager
def lock_outputs(options: Iterable[SinkOptions]) -> Iterator[None]:
    """Lock the files and folders of the outputs against other runs for the duration of the block.

    Raises:
        TemporaryError: Another run writes to one of them, or its disk is not mounted.
    """
    with ExitStack() as locks:
        for each in options:
            for path in (*each.files(), *each.folders()):
                check_mounted(path)  # before the lock, whose file would be written into the empty mount point
            for path in each.files():
                locks.enter_context(exclusive_file(path))
            for folder in each.folders():
                locks.enter_context(exclusive_file(folder / _FOLDER_LOCK, folder=folder))
        yield


def run_context(
    outputs: OutputContext,
    stream: Stream,
    health: ReadHealth,
    recorder: H264Recorder | None,
    tap: PacketTap | None,
    taught: TaughtFile | None = None,
) -> RunContext:
    """Return what a run offers to its sinks.

    Args:
        outputs: The context of the outputs.
        stream: The stream whose results the sinks receive.
        health: Returns the newest health sample.
        recorder: The recorder of `RecordOptions.recorder`.
        tap: The tap of `ClipOptions.tap`.
        taught: The file of the taught model, with --teach.
    """
    from edgekit.device.sinks.context import RunContext
    from edgekit.device.sinks.monitor import Monitor

    options = stream.options
    restrictions = {
        "--roi": options.region is not None,
        "--zone": bool(options.zones),
        "--min-face": options.min_face_px > 0,
        "--largest": options.largest_only,
    }
    return RunContext(
        **vars(outputs),  # a RunContext is an OutputContext with more
        source=stream.source,
        contract=stream.classifier.contract,
        controls=stream.controls,
        # A function, because sinks add accounts later.
        monitor=Monitor(stream.source.name, health, lambda: outputs.accounts, stream.controls),
        recogniser=stream.picture_recogniser,  # a method, which only the web page calls
        recorder=recorder,
        tap=tap,
        use_model=stream.use_model,
        taught=taught,
        roi=stream.roi,
        zones=options.zones,
        excluding=[flag for flag, is_given in restrictions.items() if is_given],
    )


def open_sinks(options: Iterable[SinkOptions], run: RunContext) -> list[Sink]:
    """Return the sinks of a run, not yet entered: the monitor, and the requested ones in the order of `options`.

    Raises:
        InputError: A sink cannot be created with these options.
        StorageError: A folder cannot be written, and the source is a recording.
        TemporaryError: What a sink needs is missing at the moment.
    """
    from edgekit.device.sinks.disk_reserve import DailyWrites

    if run.rules.blur_faces and run.excluding:
        run.notify(f"--blur-faces does not blur the faces that {' or '.join(run.excluding)} excludes")
    for folder in (folder for each in options for folder in each.folders()):
        try:
            # For a file in the folder. "*" is never created: it stands for all files in the message of the error.
            check_writable(folder / "*")
        except StorageError as error:
            if not run.source.live:
                raise
            run.notify(f"{error}: the run continues")  # the first picture may come much later
    opened = [each.open(run) for each in options]
    # The monitor comes first, because the web page and MQTT read it.
    sinks: list[Sink] = [run.monitor, *(sink for sink in opened if sink is not None)]
    if run.source.live and run.taught is None:  # a minute of teaching does not predict the writes of a day
        sinks.append(DailyWrites(run.notify))
    return sinks


def results_folder(options: Iterable[SinkOptions]) -> Path:
    """Return an existing folder on the disk of the results; of several disks, the one with the least free space.

    Without files it is the working folder.
    """
    from edgekit.device.sinks.disk_reserve import free_bytes

    paths = [path.absolute() for each in options for path in (*each.files(), *each.folders())]
    # `free_bytes` of a path that is missing is that of its nearest folder.
    fullest = min(paths, key=free_bytes, default=Path.cwd())
    # Unlike Path.is_dir, os.path.isdir raises no error for a folder that may not be read.
    return next(folder for folder in (fullest, *fullest.parents) if os.path.isdir(folder))  # noqa: PTH112
