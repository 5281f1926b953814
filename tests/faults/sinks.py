"""The table of sinks that write files, for the tests with every fault of `disks.py`."""

from __future__ import annotations

import csv
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from edgekit.device.annotate import draw_faces
from edgekit.device.detections import Detections, FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.collect import CollectSink, EveryInterval
from edgekit.device.sinks.command_snapshots import CommandSnapshots
from edgekit.device.sinks.crop_folder import CropFolder
from edgekit.device.sinks.csv import CsvSink
from edgekit.device.sinks.h264_recorder import H264Recorder
from edgekit.device.sinks.jsonl import JsonLinesSink
from edgekit.device.sinks.lines import BatchedLines, open_lines
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt import MqttSettings, MqttSink
from edgekit.device.sinks.recorder import RecorderThread, open_video
from edgekit.device.sinks.rotation import Rotation
from edgekit.device.sources.settings import EncodedPacket
from edgekit.device.track import Track
from tests.packets import KEY_EVERY, SIZE_WH, packets

Notify = Callable[[str], None]
LABELS = ("calm", "happy", "sad")
SOON_S = 0.05
_BUFFER = "mqtt.buffer"
CONTRACT = Contract(
    architecture="mean",
    labels=LABELS,
    input=InputSpec("input", (8, 8), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
    crop=CropSpec(margin=0.0, grayscale=False, resize_hw=(8, 8), center_crop_hw=(8, 8)),
    output=OutputSpec("logits"),
)


class LiveSource:
    """The attributes of a camera that a sink reads."""

    name, fps, live = "camera", 25.0, True


@dataclass(frozen=True)
class SinkCase:
    """A sink, and a function that counts its items on the disk.

    Attributes:
        name: Name of the test's case.
        open: Returns the sink, which writes below a folder.
        stored: Returns how often each item is in these folders, by its sequence number; None if it cannot be counted.
        counted_as: The field of the account that counts the stored items. Waiting items are kept in memory too, and
            are all written again after a file is deleted.
        reason: Reason of losses by a fault of the disk in the account; None: the reason of the fault.
        write: Passes a frame to the sink.
    """

    name: str
    open: Callable[[Path, Notify], Sink]
    stored: Callable[[Iterable[Path]], Counter[int]] | None
    counted_as: str = "written"
    reason: str | None = None
    write: Callable[[Sink, Frame, FrameResult], None] = lambda sink, frame, result: sink.write(frame, result)


def quicken(monkeypatch: pytest.MonkeyPatch, close_timeout_s: float = 60.0) -> None:
    """Make all sinks write and retry sooner.

    At their end, sinks wait `close_timeout_s` for their threads, so that a busy machine causes no losses.
    """
    for module in ("lines", "collect", "recorder", "h264_recorder", "snapshots"):
        monkeypatch.setattr(f"edgekit.device.sinks.{module}._CLOSE_TIMEOUT_S", close_timeout_s)
    monkeypatch.setattr("edgekit.device.sinks.mqtt.sink._SAVE_TIMEOUT_S", close_timeout_s)
    monkeypatch.setattr("edgekit.device.sinks.lines._FLUSH_S", SOON_S)
    monkeypatch.setattr("edgekit.device.sinks.collect._RETRY_S", SOON_S)
    monkeypatch.setattr("edgekit.device.sinks.mqtt.sink._RETRY_S", SOON_S)
    monkeypatch.setattr("edgekit.device.sinks.command_snapshots._MIN_PERIOD_S", 0.0)
    monkeypatch.setattr(BatchedLines.__init__, "__defaults__", (SOON_S,))
    monkeypatch.setattr(RecorderThread.__init__, "__defaults__", (SOON_S, 1 << 18))
    monkeypatch.setattr(H264Recorder.__init__, "__defaults__", (SOON_S, 1 << 18))


def _lines(folders: Iterable[Path], pattern: str) -> list[str]:
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob(pattern)]
    return [line for path in files for line in path.read_text().splitlines()]


def _jsonl(folder: Path, notify: Notify) -> Sink:
    return JsonLinesSink(open_lines(str(folder / "r.jsonl"), Rotation(), True, notify, "jsonl"))


def _rotated_jsonl(folder: Path, notify: Notify) -> Sink:
    rotation = Rotation(size_bytes=20_000, keep=1000)
    return JsonLinesSink(open_lines(str(folder / "r.jsonl"), rotation, True, notify, "jsonl"))


def _csv(folder: Path, notify: Notify) -> Sink:
    return CsvSink(open_lines(str(folder / "r.csv"), Rotation(), True, notify, "csv"), LABELS)


def _collect(folder: Path, notify: Notify) -> Sink:
    crops = CropFolder(folder, "camera", notify, max_crops=10**6, max_bytes=10**9)
    return CollectSink(EveryInterval(0), crops, CONTRACT, LiveSource())


def _video(folder: Path, notify: Notify) -> Sink:
    return open_video(folder / "o.mp4", LiveSource(), Rotation(), None, notify, draw_faces)


def _camera_video(folder: Path, notify: Notify) -> Sink:
    recorder = H264Recorder(folder / "o.mp4", Rotation(), notify)
    recorder.start(SIZE_WH)
    return recorder


def _put_packet(sink: Sink, frame: Frame, result: FrameResult) -> None:
    sink.write(frame, result)
    cycle = _coded_cycle()
    coded = cycle[frame.sequence % len(cycle)]
    sink.put(EncodedPacket(coded.data, coded.is_key, frame.sequence * 40_000))


@cache
def _coded_cycle() -> list[EncodedPacket]:
    """Return a few packets, which the test repeats; only the first packet is a key frame."""
    return packets(KEY_EVERY, noise=30)


def _snapshots(folder: Path, notify: Notify) -> Sink:
    return CommandSnapshots(folder, notify)


def _mqtt(folder: Path, notify: Notify) -> MqttSink:
    # No broker listens at port 1, so all events wait in the buffer file.
    topic = f"edgekit/{secrets.token_hex(4)}"  # tests run in parallel, and a topic belongs to one run
    settings = MqttSettings.parse("mqtt://127.0.0.1:1", None, topic=topic, buffer=folder / _BUFFER)
    return MqttSink(
        settings,
        LABELS,
        Monitor("demo", lambda: None),
        lambda line: None if line.startswith("MQTT broker ") else notify(line),
    )


def _post(sink: Sink, frame: Frame, result: FrameResult) -> None:
    sink.write(frame, result)
    sequence = frame.sequence
    sink.post(Event(f"run-{sequence}", 1, "happy", None, 0.9, 1.0, sequence, float(sequence), 1.7e9))


def _request(sink: Sink, frame: Frame, result: FrameResult) -> None:
    sink.request()
    sink.write(frame, result)


def _collect_faces(sink: Sink, frame: Frame, result: FrameResult) -> None:
    """Pass a result whose faces are arrays, like those of the pipeline."""
    faces = result.faces
    detections = Detections(
        np.array([face.xyxy for face in faces], np.float32),
        np.array([face.score for face in faces], np.float32),
        tracks=np.array([Track(face.track_id or 0) for face in faces], np.object_),
        probabilities=np.array([list(face.probabilities.values()) for face in faces], np.float32),
        classes=LABELS,
        label_indices=np.array([LABELS.index(face.label) for face in faces], np.int64),
    )
    sink.write(frame, replace(result, faces=detections))


def _json_sequences(folders: Iterable[Path]) -> Counter[int]:
    return Counter(json.loads(line)["sequence"] for line in _lines(folders, "*.jsonl") if line)


def _csv_sequences(folders: Iterable[Path]) -> Counter[int]:
    rows = csv.reader(_lines(folders, "*.csv"))
    return Counter(int(row[0]) for row in rows if row[0] != "sequence")


def _crop_sequences(folders: Iterable[Path]) -> Counter[int]:
    """Return the sequence numbers in crops.jsonl; check that each crop is a readable image."""
    places = list(folders)
    crops = [json.loads(line) for line in _lines(places, "crops.jsonl") if line]
    for crop in crops:
        assert any(cv2.imread(str(folder / crop["file"])) is not None for folder in places)
    return Counter(crop["sequence"] for crop in crops)


def _image_numbers(folders: Iterable[Path]) -> Counter[int]:
    """Return the numbers of the images; check that each image is readable."""
    found = [path for folder in folders if folder.is_dir() for path in folder.glob("*.jpg")]
    paths = [path for path in found if not path.name.startswith(".")]  # without incomplete files
    assert all(cv2.imread(str(path)) is not None for path in paths)
    return Counter(int(path.stem.rpartition("-")[2]) for path in paths)


def _buffered_sequences(folders: Iterable[Path]) -> Counter[int]:
    """Return the sequence numbers of the events that the next run sends."""
    stored: Counter[int] = Counter()
    for folder in folders:
        if (folder / _BUFFER).exists():
            spool = _mqtt(folder, lambda _: None)._spool
            stored.update(json.loads(message.payload)["sequence"] for message in spool.after(0, 10**6))
            spool.close()
    return stored


SINKS = (
    SinkCase("jsonl", _jsonl, _json_sequences),
    SinkCase("jsonl with rotation", _rotated_jsonl, _json_sequences),
    SinkCase("csv", _csv, _csv_sequences),
    SinkCase("collect", _collect, _crop_sequences, write=_collect_faces),
    # The images of events are written by the same thread.
    SinkCase("snapshots", _snapshots, _image_numbers, reason="disk not writable", write=_request),
    # A live video repeats and drops frames so that it plays in real time.
    SinkCase("save", _video, None, reason="disk not writable"),
    SinkCase("record", _camera_video, None, reason="disk not writable", write=_put_packet),
    SinkCase(
        "mqtt buffer", _mqtt, _buffered_sequences, counted_as="waiting", reason="buffer not writable", write=_post
    ),
)
