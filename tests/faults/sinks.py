"""The table of sinks that write files, for the tests with every fault of `disks.py`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.context import Account
from edgekit.device.sinks.crop_strategies import CollectSink, EveryInterval
from edgekit.device.sinks.csv import CsvOptions
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.mqtt.spool import Spool
from edgekit.device.sinks.record import H264Recorder
from edgekit.device.sinks.save import SaveOptions
from edgekit.device.sinks.snapshots import SnapshotWriter
from edgekit.device.sinks.writer import Writer
from edgekit.device.sources.settings import EncodedPacket
from edgekit.errors import TemporaryError
from tests.packets import KEY_EVERY, SIZE_WH, packets
from tests.runs import run_of
from tests.waiting import wait_until

Notify = Callable[[str], None]
SOON_S = 0.05
_BUFFER = "mqtt.sqlite"


@dataclass(frozen=True)
class SinkCase:
    """A sink, and a function that counts its items on the disk.

    Attributes:
        name: Name of the test's case.
        open: Returns the sink, which writes below a folder, and its account.
        stored: Returns how often each item is in the folder, by its sequence number; None if it cannot be counted.
        counted_as: The field of the account that counts the stored items. Waiting items are kept in memory too.
        reason: Reason of losses by a fault of the disk in the account; None: the reason of the fault.
        write: Passes a frame to the sink.
    """

    name: str
    open: Callable[[Path, Notify, float], tuple[Any, Account]]
    stored: Callable[[Path], Counter[int]] | None
    counted_as: str = "written"
    reason: str | None = None
    write: Callable[[Any, Frame, FrameResult], None] = lambda sink, frame, result: sink.write(frame, result)


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all sinks write and retry sooner."""
    begin = Writer.__init__

    def begin_quick(self, target, rules, *arguments, **options) -> None:
        quick = replace(rules, every_s=rules.every_s and SOON_S, pauses_s=(SOON_S,))
        begin(self, target, quick, *arguments, **options)

    monkeypatch.setattr(Writer, "__init__", begin_quick)


def _opened(make: Callable[[Path, Any], Sink | None]) -> Callable[..., tuple[Any, Account]]:
    def open_sink(folder: Path, notify: Notify, end_s: float) -> tuple[Any, Account]:
        run = run_of(notify, end_s=end_s, disk_reserve=0)
        sink = make(folder, run)
        return sink, run.accounts[0]

    return open_sink


def _camera_video(folder: Path, run: Any) -> H264Recorder:
    recorder = H264Recorder(folder / "o.mp4", run)
    recorder.start(SIZE_WH)
    return recorder


class _Events(Sink):
    """A spool without a broker: all events wait in it."""

    def __init__(self, path: Path, account: Account, notify: Notify) -> None:
        self.spool = Spool(path, 10_000, account, notify)

    def __exit__(self, *exception: object) -> None:
        self.spool.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        del frame
        self.spool.append("edgekit/door/event", json.dumps({"sequence": result.sequence}))


def _events(folder: Path, run: Any) -> _Events:
    return _Events(folder / _BUFFER, run.account("mqtt"), run.notify)


def _put_packet(sink: Any, frame: Frame, result: FrameResult) -> None:
    sink.write(frame, result)
    cycle = _coded_cycle()
    coded = cycle[frame.sequence % len(cycle)]
    sink.put(EncodedPacket(coded.data, coded.is_key, frame.sequence * 40_000))


def _lines(folder: Path, pattern: str) -> list[str]:
    return [line for path in folder.rglob(pattern) for line in path.read_text().splitlines()]


@cache
def _coded_cycle() -> list[EncodedPacket]:
    """Return a few packets, which the test repeats; only the first packet is a key frame."""
    return packets(KEY_EVERY, noise=30)


def _take(sink: Any, frame: Frame, result: FrameResult) -> None:
    number = frame.sequence
    sink.take(Event(f"a-{number}", 1, "happy", None, 0.9, 0.0, number, 0.0, frame.wall_s), frame, result)


def _json_sequences(folder: Path) -> Counter[int]:
    return Counter(json.loads(line)["sequence"] for line in _lines(folder, "*.jsonl") if line)


def _csv_sequences(folder: Path) -> Counter[int]:
    rows = csv.reader(_lines(folder, "*.csv"))
    return Counter(int(row[0]) for row in rows if row[0] != "sequence")


def _crop_sequences(folder: Path) -> Counter[int]:
    """Return the sequence numbers in crops.jsonl; check that each crop is a readable image."""
    crops = [json.loads(line) for line in _lines(folder, "crops.jsonl") if line]
    assert all(cv2.imread(str(folder / crop["file"])) is not None for crop in crops)
    return Counter(crop["sequence"] for crop in crops)


def _image_numbers(folder: Path) -> Counter[int]:
    """Return the numbers of the images; check that each image is readable."""
    paths = [path for path in folder.glob("*.jpg") if not path.name.startswith(".")]  # without incomplete files
    assert all(cv2.imread(str(path)) is not None for path in paths)
    return Counter(int(path.stem.rpartition("-")[2]) for path in paths)


def _open_spool(path: Path) -> Spool:
    """Open the buffer as the next run does, and again until the thread of a run whose disk stalled has closed it."""
    opened: list[Spool] = []

    def opens() -> bool:
        with suppress(TemporaryError):
            opened.append(Spool(path, 10_000, Account("mqtt"), lambda _: None))
        return bool(opened)

    wait_until(opens)
    return opened[0]


def _buffered_sequences(folder: Path) -> Counter[int]:
    """Return the sequence numbers of the events that the next run sends."""
    spool = _open_spool(folder / _BUFFER)
    stored = Counter(json.loads(message.payload)["sequence"] for message in spool.after(0, 10**6))
    spool.close()
    return stored


SINKS = (
    SinkCase(
        "jsonl", _opened(lambda folder, run: JsonLinesOptions(jsonl=str(folder / "r.jsonl")).open(run)), _json_sequences
    ),
    SinkCase("csv", _opened(lambda folder, run: CsvOptions(csv=folder / "r.csv").open(run)), _csv_sequences),
    SinkCase("collect", _opened(lambda folder, run: CollectSink(EveryInterval(0), folder, run)), _crop_sequences),
    SinkCase("snapshots", _opened(SnapshotWriter), _image_numbers, write=_take),
    # Frames of a live video that come too fast are dropped.
    SinkCase("save", _opened(lambda folder, run: SaveOptions(save=folder / "o.mp4").open(run)), None),
    SinkCase("record", _opened(_camera_video), None, write=_put_packet),
    SinkCase("mqtt buffer", _opened(_events), _buffered_sequences, counted_as="waiting", reason="buffer not writable"),
)
