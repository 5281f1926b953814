"""The sinks of `edgekit run`, created from its output options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgekit.cli.output import Output
from edgekit.cli.progress import is_progress_shown, progress_bar, updater
from edgekit.cli.run.network_sinks import network_sinks
from edgekit.cli.run.output_options import CROPS_FILE, STDOUT, Outputs, allowed_commands, output_files, rotation_of
from edgekit.cli.run.pictures import command_snapshots, draw_function, event_snapshots, face_blur, warn_of_drawn_labels

if TYPE_CHECKING:
    from edgekit.contract import Contract
    from edgekit.device.accounting import Account
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame, Source
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.sink import Sink
    from edgekit.device.sinks.collect import CollectSink, Strategy
    from edgekit.device.sinks.h264_recorder import H264Recorder
    from edgekit.device.sinks.lines import Lines
    from edgekit.device.sinks.monitor import ReadHealth


@contextmanager
def exclusive_outputs(outputs: Outputs) -> Iterator[None]:
    """Lock the files of the outputs against other runs for the duration of the block, on disks that are mounted.

    Raises:
        TemporaryError: Another run writes to one of them, or its disk is not mounted.
    """
    from edgekit.files import check_mounted, exclusive_file

    with ExitStack() as locks:
        for target in output_files(outputs):
            check_mounted(target)
            is_crops = outputs.collect is not None and target == outputs.collect / CROPS_FILE
            locks.enter_context(exclusive_file(target, outputs.collect if is_crops else None))
        by_command = outputs.command_snapshots if "snapshot" in allowed_commands(outputs) else None
        for folder in (outputs.event_snapshots, by_command):
            if folder is not None:
                check_mounted(folder)
                # Each run deletes the oldest images of the folder, without regard to those of another run.
                locks.enter_context(exclusive_file(folder / "snapshots", folder))
        yield


def open_sinks(
    outputs: Outputs,
    stream: Stream,
    recorder: H264Recorder | None,
    collecting: Sequence[CollectSink],
    say: Callable[[str], None],
    notify: Callable[[str], None],
    health: ReadHealth,
) -> list[Sink]:
    """Return the requested sinks for the results of `stream`, with those of --record and --collect, not yet entered.

    edgekit's own sinks are closed at once, so that a disk that stalls or a receiver that is gone delays the end of the
    run by one time limit only. `health` returns the newest sample of the machine's state.

    Raises:
        InputError: A sink cannot be created with these options.
    """
    from edgekit.device.sink import accounts_of
    from edgekit.device.sinks.concurrent_group import ConcurrentGroup

    source, contract = stream.source, stream.classifier.contract
    _check_for_stream(outputs, stream, notify)
    labels = contract.labels
    sinks = [*collecting, *_files(outputs, source, labels, notify)]
    if source.live:
        from edgekit.device.sinks.daily_writes import DailyWrites

        sinks.append(DailyWrites(notify))
    if recorder is not None:
        sinks.append(recorder)
    # A window belongs to the main thread, and so may a sink of another package.
    others = _registered(outputs, source, labels, notify)
    if outputs.show:
        from edgekit.device.sinks.window import WindowSink

        others.append(WindowSink(source.stop, draw_function(outputs)))
    snapshots, by_command = event_snapshots(outputs, source, notify), command_snapshots(outputs, source, notify)
    if by_command is not None:
        sinks.append(by_command)
    network, outlets = network_sinks(
        outputs, stream, say, notify, health, lambda: accounts_of([*sinks, *others]), snapshots, by_command
    )
    sinks += network
    if outlets or snapshots is not None:
        from edgekit.device.events import EventRules
        from edgekit.device.frame import presentation_time_s
        from edgekit.device.sinks.events import EventSink

        rules = EventRules(
            outputs.event_hold, outputs.event_cooldown, outputs.event_probability, frozenset(outputs.event_label)
        )

        def is_camera_usable() -> bool:
            sample = health()
            return sample is None or sample.is_camera_usable

        sinks.append(EventSink(rules, outlets, presentation_time_s(source), snapshots, is_camera_usable))
    return [ConcurrentGroup(sinks), *others]


def collect_sinks(
    outputs: Outputs, source: Source, contract: Contract, notify: Callable[[str], None]
) -> list[CollectSink]:
    """Return a list with the sink of --collect, or an empty list without --collect.

    Raises:
        InputError: The folder is a file.
    """
    if outputs.collect is None:
        return []
    from edgekit.cli.param_types import parse_collect_when
    from edgekit.device.sinks.collect import CollectSink, EveryInterval, best_of_track, uncertain
    from edgekit.device.sinks.crop_folder import CropFolder
    from edgekit.device.sinks.disk_reserve import IMAGES, DiskReserve

    folder = CropFolder(
        outputs.collect,
        source.name,
        notify,
        max_crops=outputs.collect_max,
        max_bytes=round(outputs.collect_max_mb * 1e6),
        is_disk_low=DiskReserve(
            outputs.collect, IMAGES, outputs.disk_reserve, f"collecting to '{outputs.collect}'", notify
        ).is_low,
    )
    name, value = parse_collect_when(outputs.collect_when)
    strategies: dict[str, Callable[[float], Strategy]] = {
        "uncertain": uncertain,
        "every": EveryInterval,
        "best-of-track": lambda _: best_of_track(),
    }
    return [CollectSink(strategies[name](value), folder, contract, source)]


def progress_sinks(out: Output, outputs: Outputs, frame_count: int | None, max_frames: int | None) -> list[Sink]:
    """Return a list with the sink of the progress bar, empty if it would show nothing or stdout has JSON lines."""
    if frame_count is None or outputs.jsonl == STDOUT or not is_progress_shown():
        return []
    return [_Progress(out, min(frame_count, max_frames or frame_count))]


class _Progress:
    accounts: Sequence[Account] = ()

    def __init__(self, out: Output, total: int) -> None:
        self._bar = progress_bar(out)
        self._update = updater(self._bar, "frames")
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


def _files(outputs: Outputs, source: Source, labels: Sequence[str], notify: Callable[[str], None]) -> list[Sink]:
    sinks: list[Sink] = []
    if outputs.jsonl is not None:
        from edgekit.device.sinks.jsonl import JsonLinesSink

        sinks.append(JsonLinesSink(_lines(outputs, outputs.jsonl, source, notify, "jsonl")))
    if outputs.csv_file is not None:
        from edgekit.device.sinks.csv import CsvSink

        sinks.append(CsvSink(_lines(outputs, outputs.csv_file, source, notify, "csv"), labels))
    if outputs.records == "changes":
        from edgekit.device.frame import presentation_time_s
        from edgekit.device.sinks.record_changes import RecordChanges

        sinks = [RecordChanges(sink, presentation_time_s(source)) for sink in sinks]
    if outputs.save is not None:
        sinks.append(_saved_frames(outputs.save, outputs, source, notify))
    return sinks


def _lines(outputs: Outputs, target: str, source: Source, notify: Callable[[str], None], name: str) -> Lines:
    from edgekit.device.sinks.disk_reserve import RECORDS, DiskReserve
    from edgekit.device.sinks.lines import open_lines

    reserve = DiskReserve(Path(target), RECORDS, outputs.disk_reserve, f"recording to '{target}'", notify)
    return open_lines(target, rotation_of(outputs), source.live, notify, name, reserve.is_low)


def _saved_frames(target: Path, outputs: Outputs, source: Source, notify: Callable[[str], None]) -> Sink:
    from edgekit.device.sinks.disk_reserve import VIDEO, DiskReserve
    from edgekit.device.sinks.pictures import PictureSink, is_for_pictures
    from edgekit.device.sinks.recorder import open_video

    if is_for_pictures(target):
        return PictureSink(target, source, outputs.blur_faces, draw_function(outputs))
    reserve = DiskReserve(target, VIDEO, outputs.disk_reserve, f"recording to '{target}'", notify)
    blur, draw = face_blur(outputs, source), draw_function(outputs)
    return open_video(target, source, rotation_of(outputs), blur, notify, draw, reserve.is_low)


def _registered(outputs: Outputs, source: Source, labels: Sequence[str], notify: Callable[[str], None]) -> list[Sink]:
    from edgekit.device.registry import find
    from edgekit.device.sink import SinkOptions

    named = (text.partition(":") for text in outputs.extra_sinks)
    return [find("sink", name)(SinkOptions(value, source.name, source.fps, labels, notify)) for name, _, value in named]


def _check_for_stream(outputs: Outputs, stream: Stream, notify: Callable[[str], None]) -> None:
    from edgekit.errors import InputError

    contract, options = stream.classifier.contract, stream.options
    warn_of_drawn_labels(outputs, contract.labels, notify)
    if outputs.blur_faces and contract.subject == "image":
        raise InputError(
            "--blur-faces needs the face detector, which a model of whole images does not use: leave it out"
        )
    restrictions = {
        "--roi": options.region is not None,
        "--min-face": options.min_face_px > 0,
        "--largest": options.largest_only,
    }
    given = [name for name, is_given in restrictions.items() if is_given]
    if outputs.blur_faces and given:
        notify(f"--blur-faces does not blur the faces that {' or '.join(given)} excludes")
    for label in outputs.event_label:
        if label not in contract.labels:
            known = ", ".join(contract.labels)
            raise InputError(f"--event-label '{label}' is not a label of the model: choose from {known}")
