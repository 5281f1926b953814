"""Zones: which faces are in them, and their results in events, records, metrics and drawings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.device.annotate import draw_faces
from edgekit.device.detections import FrameResult
from edgekit.device.sinks.csv import CsvOptions
from edgekit.device.sinks.events import EventDetector, EventOptions
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.monitor import metrics_text
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker, WholeImage
from edgekit.device.tracking.detection_schedule import Every
from edgekit.device.zones import Zone, parse_zone
from edgekit.errors import InputError
from tests.device.tracking.test_face_tracker import Squares, frames, picture
from tests.runs import Source, run_of

LEFT = parse_zone("left=0,0,0.5,0,0.5,1,0,1")
# Without the middle of its upper half.
CUP = parse_zone("cup=0,0,0.3,0,0.3,0.5,0.7,0.5,0.7,0,1,0,1,1,0,1")

# Of a frame of 320x240 pixels: half a pixel high.
THIN = parse_zone("thin=0,0,1,0,1,0.002")


def zoned(result: FrameResult, *indices: int) -> FrameResult:
    """Return the result of a run with two zones; each face is in the one with the given index."""
    zones = (LEFT, Zone("right", ((0.5, 0), (1, 0), (1, 1))))
    return replace(result, faces=replace(result.faces, zones=zones, zone_indices=np.array(indices)))


@pytest.mark.parametrize(
    ("zones", "found"),
    [
        ((LEFT,), [("left", 10)]),
        ((LEFT, CUP), [("left", 10), ("cup", 260)]),
        ((CUP, LEFT), [("cup", 10), ("cup", 260)]),
        ((parse_zone("corner=0,0,0.05,0,0,0.05"),), []),
    ],
)
def test_a_face_is_in_the_first_zone_with_its_centre_and_faces_outside_are_left_out(zones, found):
    (frame,) = frames(picture((10, 20), (140, 20), (260, 20)))
    for schedule in (None, Every(1)):
        faces = FaceTracker(Squares(), schedule, zones=zones).find(frame, StageTimer())
        assert [(face.zone, face.xyxy[0]) for face in faces] == found
        assert faces.zones == zones


@pytest.mark.parametrize(
    "localizer", [WholeImage(None, is_sequence=True, zones=[THIN]), FaceTracker(Squares(), Every(1), zones=[THIN])]
)
def test_a_zone_smaller_than_a_pixel_is_an_error_in_the_first_frame(localizer):
    (frame,) = frames(picture((10, 20)))
    with pytest.raises(InputError, match="thin"):
        localizer.find(frame, StageTimer())


@pytest.mark.parametrize(
    "corners", ["0,0,0,1,0,0.5", "0,0.3,1,0.3,0.5,0.3", "0.1,0.1,0.4,0.4,0.7,0.7,0.2,0.2", "0,0,2,0,2,2"]
)
def test_a_line_and_a_zone_outside_the_frame_are_refused(corners):
    with pytest.raises(InputError):
        parse_zone(f"door={corners}")


def test_a_face_that_leaves_the_zone_and_returns_keeps_its_number():
    tracker = FaceTracker(Squares(), Every(1), zones=[LEFT])
    steps = [*range(100, 180, 10), *range(180, 90, -10)]
    seen = [tracker.find(frame, StageTimer()) for frame in frames(*(picture((x, 60)) for x in steps))]
    assert [len(faces) for faces in seen] == [int(x + 24 < 160) for x in steps]
    assert {face.track_id for faces in seen for face in faces} == {1}


def test_the_largest_face_is_the_largest_in_the_zones():
    tracker = FaceTracker(Squares(), None, largest_only=True, zones=[LEFT])
    (frame,) = frames(picture((10, 20), (60, 100), (200, 20), sizes=(40, 50, 90)))
    assert [face.xyxy[0] for face in tracker.find(frame, StageTimer())] == [60]


def test_each_zone_has_its_own_latest_event(feed):
    detector, events = EventDetector(EventOptions(event_hold=1.0)), []
    for step, (label, zone) in enumerate([("sad", 0)] * 4 + [("sad", 1)] * 4 + [("happy", 1)] * 4):
        events += detector.update(zoned(feed.next(label, at_s=step * 0.5)[1], zone))
    documents = [event.as_document() for event in events]
    found = [(each["zone"], each["previous"], each["label"], each["monotonic_s"]) for each in documents]
    assert found == [("left", None, "sad", 1.0), ("right", None, "sad", 3.0), ("right", "sad", "happy", 5.0)]


def test_records_have_the_zone_and_a_change_of_it_is_a_change(tmp_path: Path, notices, feed):
    run = replace(run_of(notices.append, Source(live=False), records="changes"), zones=[LEFT])
    sinks = [
        kind.open(run)
        for kind in (JsonLinesOptions(jsonl=str(tmp_path / "r.jsonl")), CsvOptions(csv=tmp_path / "r.csv"))
    ]
    for sink in sinks:
        with sink:
            for zone in (0, 0, 1, 1):
                frame, result = feed.next("happy")
                sink.write(replace(frame, position_s=0.1), zoned(result, zone))
    lines = [json.loads(line)["faces"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [face["zone"] for (face,) in lines] == ["left", "right"]
    with (tmp_path / "r.csv").open(newline="") as stream:
        assert [row["zone"] for row in csv.DictReader(stream)] == ["left", "right"]


def test_metrics_count_faces_by_zone(notices, feed):
    monitor = run_of(notices.append).monitor
    for zones in ((0, 1), (0, 0)):
        frame, result = feed.next("happy", "sad")
        monitor.write(frame, zoned(result, *zones))
    families = {family.name: family for family in text_string_to_metric_families(metrics_text(monitor, 0, 0))}
    found = {(each.labels["zone"], each.labels["label"]): each.value for each in families["edgekit_faces"].samples}
    assert found == {("left", "happy"): 2, ("left", "sad"): 1, ("right", "sad"): 1}


def test_a_zone_is_drawn_with_its_name():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_faces(image, [], [parse_zone("door=0.5,0.1,0.9,0.8,0.1,0.8")])
    white = (drawn == 255).all(axis=2)
    assert white[158:162, 60:240].any(axis=0).all(), "the lower edge"
    assert white[:140, 30].sum() == 0, "no box around it"
    assert white[145:160, 32:60].mean() > 0.5, "the plate of the name is above the lowest corner"
