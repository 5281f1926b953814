"""Images of events: the chosen frame, limits of number and size, and disk errors."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.blur import FaceBlur
from edgekit.device.events import Event, EventRules
from edgekit.device.imaging import read_image
from edgekit.device.sinks.disk_reserve import IMAGES, DiskReserve
from edgekit.device.sinks.events import EventSink
from edgekit.device.sinks.snapshots import EventSnapshots, image_name
from edgekit.errors import InputError
from tests.waiting import wait_until


def event(number: int, label: str = "happy") -> Event:
    return Event(f"ab12-{number}", 1, label, None, 0.9, 1.0, number, float(number), 1.7e9 + number)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Outlet:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def post(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Block the writer thread until the event is set."""
    ready = threading.Event()
    write = EventSnapshots._write
    monkeypatch.setattr(EventSnapshots, "_write", lambda *item: (ready.wait(60), write(*item)))
    return ready


def test_an_event_has_the_frame_that_triggered_it(tmp_path, notices, feed):
    outlet = Outlet()
    snapshots = EventSnapshots(tmp_path / "new", notices.append, draw=lambda image, _: image)
    with EventSink(EventRules(hold_s=0.0), [outlet], snapshots=snapshots) as sink:
        for number, label in enumerate(["happy", "happy", "sad"]):
            sink.write(*feed.next(label, at_s=float(number)))
    first, second = outlet.events
    assert names(tmp_path / "new") == sorted([first.snapshot, second.snapshot])
    assert "-happy-" in first.snapshot
    assert second.as_document()["snapshot"] == second.snapshot
    for one in outlet.events:
        # The brightness of `feed`'s frames.
        assert read_image(tmp_path / "new" / one.snapshot).mean() == pytest.approx(40 + 7 * one.sequence, abs=2)
    assert sink.accounts[0].as_document() == {"produced": 2, "written": 2, "dropped": {}, "waiting": 0}
    assert notices == []


def test_an_event_without_snapshots_has_no_such_field(feed):
    outlet = Outlet()
    with EventSink(EventRules(hold_s=0.0), [outlet]) as sink:
        sink.write(*feed.next("happy"))
    assert "snapshot" not in outlet.events[0].as_document()


def test_the_oldest_images_are_deleted_also_those_of_earlier_runs_and_nothing_else(tmp_path, notices, feed):
    (tmp_path / "mine.jpg").write_text("a file of the user")
    for first in (0, 3):
        with EventSnapshots(tmp_path, notices.append, max_files=4) as snapshots:
            for number in range(first, first + 3):
                name = snapshots.take(event(number), *feed.next("happy")).snapshot
                assert snapshots.jpeg(name) == (tmp_path / name).read_bytes()
    assert [name.split("-")[-1] for name in names(tmp_path)] == ["2.jpg", "3.jpg", "4.jpg", "5.jpg", "mine.jpg"]


def test_an_image_that_cannot_be_read_does_not_hide_the_others_from_the_limit(tmp_path, notices, feed):
    with EventSnapshots(tmp_path, notices.append) as snapshots:
        for number in range(5):
            snapshots.jpeg(snapshots.take(event(number), *feed.next("happy")).snapshot)
    damaged = tmp_path / image_name(1.0, "happy", "1f0c9a2b-1")
    damaged.symlink_to(damaged)
    with EventSnapshots(tmp_path, notices.append, max_files=2) as snapshots:
        snapshots.jpeg(snapshots.take(event(5), *feed.next("happy")).snapshot)
    assert [name.split("-")[-1] for name in names(tmp_path)] == ["1.jpg", "4.jpg", "5.jpg"]


def test_what_a_power_cut_left_of_an_image_is_removed_and_nothing_else(tmp_path, notices, killed_write):
    name = image_name(1.7e9, "happy", "1f0c9a2b-1")
    killed_write(tmp_path / name)
    for other in (".hidden.jpg", ".a.jpg.12345678.png", "b.jpg.12345678.jpg"):
        (tmp_path / other).write_text("a file of the user")
    assert len(list(tmp_path.iterdir())) == 4
    with EventSnapshots(tmp_path, notices.append):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".a.jpg.12345678.png",
        ".hidden.jpg",
        "b.jpg.12345678.jpg",
    ]


def test_the_images_together_are_no_larger_than_the_limit(tmp_path, notices, feed):
    with EventSnapshots(tmp_path, notices.append, max_bytes=200_000) as snapshots:
        for number in range(6):
            frame, result = feed.next("happy")
            frame.image_bgr[:] = np.random.default_rng(number).integers(0, 256, frame.image_bgr.shape, np.uint8)
            snapshots.jpeg(snapshots.take(event(number), frame, result).snapshot)
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000
    assert 2 <= len(names(tmp_path)) < 6


def test_blurred_faces_are_not_in_the_image(tmp_path, notices, feed):
    shown = {}
    for blurred in (False, True):
        folder = tmp_path / str(blurred)
        with EventSnapshots(folder, notices.append, blur=FaceBlur() if blurred else None) as snapshots:
            frame, result = feed.next("happy")
            frame.image_bgr[:, ::2] = 255
            snapshots.update(frame, result)
            snapshots.take(event(0), frame, result)
        (name,) = names(folder)
        shown[blurred] = np.diff(read_image(folder / name)[80:140, 30:80].astype(int), axis=1).std()
    assert shown[True] < 20 < 60 < shown[False]


def test_an_event_that_comes_while_the_disk_stalls_is_posted_without_an_image(tmp_path, notices, feed, slow):
    with EventSnapshots(tmp_path, notices.append) as snapshots:
        taken = [snapshots.take(event(number), *feed.next("happy")) for number in range(20)]
        slow.set()
        wait_until(lambda: snapshots.account.waiting == 0)
    with_image = [one for one in taken if one.snapshot is not None]
    assert 4 <= len(with_image) <= 5
    assert taken[-1].snapshot is None
    counts = snapshots.account.as_document()
    assert counts["dropped"] == {"encoder or disk too slow": 20 - len(with_image)}
    assert counts["written"] == len(names(tmp_path)) == len(with_image)


def test_a_failure_at_the_last_image_ends_the_run(tmp_path, notices, feed):
    def fail(*_: object) -> np.ndarray:
        raise ZeroDivisionError

    snapshots = EventSnapshots(tmp_path, notices.append, draw=fail)
    with pytest.raises(ZeroDivisionError), snapshots:
        snapshots.take(event(0), *feed.next("happy"))
    assert snapshots.account.as_document()["dropped"] == {"encoder or disk too slow": 1}


def test_a_full_disk_is_reported_once_and_its_end_too(small_disk, notices, feed, fill):
    ballast = fill(small_disk)
    with EventSnapshots(small_disk, notices.append) as snapshots:
        for number in range(3):
            name = snapshots.take(event(number), *feed.next("happy")).snapshot
            assert snapshots.jpeg(name) is None
        assert len(notices) == 1
        assert "No space left" in notices[0]
        assert notices[0].endswith("has stopped, the run continues")
        ballast.unlink()
        assert snapshots.jpeg(snapshots.take(event(3), *feed.next("happy")).snapshot) is not None
    assert notices[1] == f"snapshots of events to '{small_disk}' has resumed"
    assert snapshots.account.as_document()["dropped"] == {"disk not writable": 3}


def test_images_are_dropped_while_the_disk_is_low(small_disk, notices, feed, fill):
    ballast = fill(small_disk, but_bytes=20_000)
    reserve = DiskReserve(small_disk, IMAGES, None, "snapshots", notices.append)
    with EventSnapshots(small_disk, notices.append, is_disk_low=reserve.is_low) as snapshots:
        for number in range(3):
            assert snapshots.jpeg(snapshots.take(event(number), *feed.next("happy")).snapshot) is None
        ballast.unlink()
        wait_until(lambda: not reserve.is_low())
        assert snapshots.jpeg(snapshots.take(event(3), *feed.next("happy")).snapshot) is not None
    assert len(notices) == 2
    assert snapshots.account.as_document()["dropped"] == {"disk reserve": 3}


def test_a_full_disk_keeps_the_older_images(small_disk, notices, feed, fill):
    with EventSnapshots(small_disk, notices.append, max_files=2) as snapshots:
        older = [snapshots.take(event(number), *feed.next("happy")).snapshot for number in range(2)]
        assert all(map(snapshots.jpeg, older))
        ballast = fill(small_disk)
        for number in range(2, 5):
            frame, result = feed.next("happy")
            # The new image is larger than the older images: the deletion of one of them frees too little space.
            frame.image_bgr[:] = np.random.default_rng(number).integers(0, 256, frame.image_bgr.shape, np.uint8)
            assert snapshots.jpeg(snapshots.take(event(number), frame, result).snapshot) is None
        assert set(older) <= set(names(small_disk))
        ballast.unlink()
        newest = snapshots.take(event(5), *feed.next("happy")).snapshot
        assert snapshots.jpeg(newest) is not None
    assert names(small_disk) == [older[1], newest]


def test_a_large_frame_is_made_smaller(tmp_path, notices, feed):
    frame, result = feed.next("happy")
    object.__setattr__(frame, "image", np.zeros((1600, 2560, 3), np.uint8))
    with EventSnapshots(tmp_path, notices.append) as snapshots:
        snapshots.take(event(0), frame, result)
    (path,) = tmp_path.iterdir()
    assert cv2.imread(str(path)).shape == (800, 1280, 3)


@pytest.mark.parametrize("label", ["a/b", "../x", "überrascht", ""])
def test_any_label_gives_a_file_name(tmp_path, notices, feed, label):
    with EventSnapshots(tmp_path / "in", notices.append) as snapshots:
        snapshots.take(event(0, label), *feed.next("happy"))
    assert len(names(tmp_path / "in")) == 1
    assert names(tmp_path) == ["in"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, notices):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        EventSnapshots(tmp_path / "file", notices.append)
