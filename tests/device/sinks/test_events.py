"""Events: posted to outlets, with images in a folder whose oldest images are deleted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.events import Event, EventOptions, EventSink
from edgekit.errors import InputError
from tests.device.conftest import Feed
from tests.runs import Source, counts, run_of


class Outlet:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def post(self, event: Event) -> None:
        self.events.append(event)


Open = Callable[..., tuple[AbstractContextManager[EventSink], RunContext, Outlet]]


@pytest.fixture
def open_events(tmp_path: Path, notices: list[str]) -> Open:
    def start(*, live: bool = False, folder: Path | None = tmp_path / "images", **rules: Any):
        run = run_of(notices.append, Source(live), **rules)
        sink = EventOptions(event_snapshots=folder, event_hold=0.0).open(run)
        outlet = Outlet()
        run.links.outlets.append(outlet.post)
        return sink, run, outlet

    return start


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("live", [False, True])
def test_an_event_has_the_frame_that_triggered_it(tmp_path, open_events, feed, live):
    sink, run, outlet = open_events(live=live)
    with sink:
        sink.write(*feed.next("happy"))
        frame, result = feed.next("sad")
        sink.write(frame, result)
    assert [event.label for event in outlet.events] == ["happy", "sad"]
    assert sorted(event.snapshot for event in outlet.events) == names(tmp_path / "images")
    image = run.links.snapshots.jpeg(outlet.events[1].snapshot)
    assert image == (tmp_path / "images" / outlet.events[1].snapshot).read_bytes()
    drawn = read_image(tmp_path / "images" / outlet.events[1].snapshot)
    assert drawn.mean() == pytest.approx(frame.image_bgr.mean(), abs=6)
    assert counts(run, "event snapshots") == {"produced": 2, "written": 2, "dropped": {}, "waiting": 0}


def test_the_oldest_images_are_deleted_also_those_of_earlier_runs_and_nothing_else(tmp_path, open_events):
    foreign = tmp_path / "images" / "holiday.jpg"
    foreign.parent.mkdir()
    foreign.write_bytes(bytes(10_000_000))
    rng = np.random.default_rng(0)
    for _ in range(2):
        sink, _, outlet = open_events(pictures_max_mb=0.2)
        with sink:
            for number in range(12):
                image = rng.integers(0, 255, (240, 320, 3), np.uint8)
                result = Feed().next("happy" if number % 2 else "sad")[1]
                sink.write(Frame(number, float(number), 1.7e9 + number, image), result)
    kept = [name for name in names(foreign.parent) if name != foreign.name]
    assert foreign.exists()
    assert 1 < len(kept) < 12
    assert set(kept) == {event.snapshot for event in outlet.events[-len(kept) :]}
    assert sum((foreign.parent / name).stat().st_size for name in kept) <= 200_000


def test_blurred_faces_are_not_in_the_image(tmp_path, open_events):
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    sink, _, outlet = open_events(blur_faces=True)
    with sink:
        sink.write(Frame(0, 0.0, 1.7e9, image), Feed().next("happy")[1])
    shown = read_image(tmp_path / "images" / outlet.events[0].snapshot)
    assert shown[70:140, 30:80].std() < image[70:140, 30:80].std() / 3


def test_a_request_saves_the_next_frame_at_most_one_per_second(tmp_path, open_events, feed):
    sink, run, _ = open_events(live=True)
    with sink:
        for _ in range(3):
            run.links.snapshots.request()
            sink.write(*feed.next())
    assert [name.split("-")[1] for name in names(tmp_path / "images")] == ["snapshot"]
    assert run.links.snapshots.latest == names(tmp_path / "images")[0]


def test_a_blur_without_a_detector_is_refused(tmp_path, notices):
    run = run_of(notices.append, subject="image", blur_faces=True)
    with pytest.raises(InputError):
        EventOptions(event_snapshots=tmp_path / "images").open(run)
