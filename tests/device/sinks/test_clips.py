"""Videos of events: what they show, how they end, and how the folder stays small."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image
from edgekit.device.sinks.clip_writer import PacketRing
from edgekit.device.sinks.clips import ClipOptions, PacketTap
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.events import Event, EventOptions
from edgekit.device.sinks.web import WebOptions
from edgekit.device.sources.settings import EncodedPacket
from edgekit.device.zones import Zone, parse_zone
from tests.device.conftest import Feed
from tests.device.http_client import request
from tests.device.videos import levels, video_frames
from tests.faults.sinks import quicken
from tests.packets import FPS as CAMERA_FPS
from tests.packets import SIZE_WH, packets
from tests.runs import Source, counts, run_of
from tests.waiting import wait_until

pytest.importorskip("av", reason="no PyAV here: pip install av")

FPS = 10
BITS, BAR_PX = 12, 16
NO_HOLD = EventOptions(event_hold=0.0)
Write = Callable[[Frame, FrameResult], None]


def barcode(number: int) -> np.ndarray:
    """Return an image that shows a number as black and white bars."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.repeat(np.repeat([bars], BAR_PX, axis=1), 96, axis=0).astype(np.uint8)[..., None].repeat(3, axis=2)


def numbers(path: Path) -> list[int]:
    """Return the numbers of the frames of a video."""
    bars = [frame[48, BAR_PX // 2 :: BAR_PX, 0] > 127 for frame in video_frames(path)]
    return [sum(1 << bit for bit in range(BITS) if frame[bit]) for frame in bars]


@contextmanager
def opened(run: RunContext, options: ClipOptions, events: EventOptions = NO_HOLD) -> Iterator[Write]:
    """Open the sinks of clips and of events; yield a function that passes a frame to both."""
    with ExitStack() as stack:
        sinks = [stack.enter_context(sink) for each in (options, events) if (sink := each.open(run)) is not None]

        def write(frame: Frame, result: FrameResult) -> None:
            for sink in sinks:
                sink.write(frame, result)

        yield write


def play(
    run: RunContext,
    options: ClipOptions,
    labels: Sequence[str],
    events: EventOptions = NO_HOLD,
    zones: tuple[Zone, ...] = (),
) -> list[tuple[int, Event]]:
    """Pass frames with these labels, 0.1 s apart; return each event with the number of its frame.

    With `zones`, the faces are in the first one.
    """
    posted: list[Event] = []
    run.links.outlets.append(posted.append)
    feed, found = Feed(), []
    with opened(run, options, events) as write:
        for number, label in enumerate(labels):
            _, result = feed.next(label, at_s=number / FPS)
            if zones:
                first_zone = np.zeros(len(result.faces), np.int64)
                result = replace(result, faces=replace(result.faces, zones=zones, zone_indices=first_zone))
            frame = Frame(number, number / FPS, 1.7e9 + number / FPS, barcode(number))
            write(frame, replace(result, sequence=number))
            found += [(number, event) for event in posted]
            posted.clear()
    return found


def labels_with_events(count: int, at: Sequence[int]) -> list[str]:
    """Return a label per frame, which changes at the frames `at`."""
    return [("calm", "happy")[sum(number >= each for each in at) % 2] for number in range(count)]


def clips_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mp4"))


def test_each_clip_of_a_recording_has_every_frame_from_five_seconds_before_its_event_to_five_after(tmp_path, notices):
    run = run_of(notices.append, Source(live=False, fps=FPS))
    events = play(run, ClipOptions(event_clips=tmp_path), labels_with_events(900, [120, 300, 305, 700]))
    shown = {path.name: numbers(path) for path in clips_of(tmp_path)}
    assert [number for number, _ in events] == [0, 120, 300, 305, 700]
    assert len(shown) == 4, "an event within a clip extends it"
    for number, event in events:
        frames = shown[event.clip]
        assert frames == list(range(frames[0], frames[-1] + 1))
        # A clip begins with a key frame: at most a second earlier.
        assert max(0, number - 60) <= frames[0] <= max(0, number - 50)
        assert frames[-1] >= number + 50
        assert (tmp_path / event.clip).with_suffix(".jpg").exists()
    assert shown[events[2][1].clip or ""][-1] == 305 + 50
    assert counts(run, "event clips") == {"produced": 5, "written": 5, "dropped": {}, "waiting": 0}


def test_other_lengths_and_the_end_of_the_recording(tmp_path, notices):
    run = run_of(notices.append, Source(live=False, fps=FPS))
    options = ClipOptions(event_clips=tmp_path, clip_before=1.0, clip_after=0.5)
    play(run, options, labels_with_events(102, [40, 100]), EventOptions(event_hold=0.0, event_label=("happy",)))
    first, *_ = (numbers(path) for path in clips_of(tmp_path))
    assert (first[0] in range(20, 31), first[-1]) == (True, 45)
    run = run_of(notices.append, Source(live=False, fps=FPS))
    play(run, replace(options, event_clips=tmp_path / "b"), labels_with_events(102, [100]))
    assert numbers(clips_of(tmp_path / "b")[-1])[-1] == 101


def test_many_events_stay_below_the_limit_and_pictures_go_with_their_clips(tmp_path, notices):
    run = run_of(notices.append, Source(live=False, fps=FPS), pictures_max_mb=0.2)
    (tmp_path / "mine.mp4").write_bytes(b"mine")
    options = ClipOptions(event_clips=tmp_path, clip_before=0.5, clip_after=0.3)
    events = play(run, options, labels_with_events(2000, range(10, 2000, 10)))
    kept = clips_of(tmp_path)
    kept.remove(tmp_path / "mine.mp4")
    assert 1 < len(kept) < len(events) == 200
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 0.2e6
    assert {path.stem for path in kept} == {path.stem for path in tmp_path.glob("*.jpg")}
    assert kept[-1].name == events[-1][1].clip


def test_a_clip_that_grows_never_exceeds_the_limit_together_with_the_older_ones(tmp_path, notices):
    limit_bytes = 60_000
    run = run_of(notices.append, Source(live=False, fps=FPS), pictures_max_mb=limit_bytes / 1e6)
    sizes: list[int] = []
    run.links.outlets.append(lambda _: sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir())))
    # Three clips of four seconds, and one that would have more than the limit.
    labels = labels_with_events(3000, [100, 200, 300, *range(400, 3000, 10)])
    play(run, ClipOptions(event_clips=tmp_path, clip_before=2.0, clip_after=2.0), labels)
    assert limit_bytes / 2 < max(sizes) <= limit_bytes
    kept = clips_of(tmp_path)
    assert [len(numbers(path)) > 10 for path in kept] == [True] * len(kept)


def wanted(tap: PacketTap, folder: Path, notices: list[str], coded: list[EncodedPacket], event_at: int) -> RunContext:
    """Pass the video of a camera with an event after the packet `event_at`."""
    tap.start(SIZE_WH)
    run = replace(run_of(notices.append), tap=tap)
    with opened(run, ClipOptions(event_clips=folder, clip_before=40, clip_after=60.0)) as write:
        for number, packet in enumerate(coded):
            tap.put(packet)
            if number == event_at:
                write(*Feed().next("happy"))
    return run


def test_a_cameras_own_video_is_not_encoded_again(tmp_path, notices):
    coded = packets(40)
    run = wanted(PacketTap(None), tmp_path, notices, coded, 20)
    (clip,) = clips_of(tmp_path)
    assert len(levels(clip)) == 40
    assert sum(len(packet.data) for packet in coded) < clip.stat().st_size < 2 * sum(len(one.data) for one in coded)
    assert cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FPS) == pytest.approx(CAMERA_FPS, rel=0.05)
    assert (counts(run, "event clips")["written"], notices) == (1, [])


def test_the_end_of_the_cameras_video_completes_the_clip(tmp_path, notices):
    tap, coded = PacketTap(None), packets(20)
    tap.start(SIZE_WH)
    run = replace(run_of(notices.append), tap=tap)
    with opened(run, ClipOptions(event_clips=tmp_path)) as write:
        for packet in coded[:10]:
            tap.put(packet)
        write(*Feed().next("happy"))
        tap.stop()  # a pause, after which the times begin again
        tap.start(SIZE_WH)
        for packet in packets(20):
            tap.put(packet)
    (clip,) = clips_of(tmp_path)
    assert len(levels(clip)) == 10


@pytest.mark.parametrize(("shared", "own"), [({"blur_faces": True}, {}), ({}, {"clip_boxes": True})])
def test_boxes_and_blurred_faces_are_in_frames_that_are_encoded_here(tmp_path, notices, shared, own):
    run = run_of(notices.append, Source(live=False, fps=FPS), **shared)
    options = ClipOptions(event_clips=tmp_path, **own)
    assert options.tap(run.rules, None) is None
    _, result = Feed().next("happy")
    plain = (np.indices((240, 320)).sum(0) // 8 % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    with opened(run, options) as write:
        write(Frame(0, 0.0, 1.7e9, plain), result)
    (clip,) = clips_of(tmp_path)
    for shown in (cv2.VideoCapture(str(clip)).read()[1], read_image(clip.with_suffix(".jpg"))):
        change = np.abs(shown.astype(int) - plain).mean(axis=2)
        assert change[50:160, 10:100].mean() > 3 * change[:, 150:].mean(), "the face of the feed"


def test_the_ring_is_bounded_in_time_and_bytes():
    ring = PacketRing(2.0)
    for number in range(200):
        ring.add(EncodedPacket(bytes(10), number % 10 == 0, number), number / 10)
    held = [packet.time_us for packet in ring.since(0)]
    assert held[-1] == 199
    assert 20 <= len(held) <= 40
    assert next(packet.time_us for packet in ring.since(18.5)) == 180
    for number in range(200, 300):
        ring.add(EncodedPacket(bytes(4 << 20), number % 2 == 0, number), 19.9)
    assert sum(len(packet.data) for packet in ring.since(0)) <= 32 << 20


@contextmanager
def shown(run: RunContext, options: ClipOptions) -> Iterator[Callable[[str], None]]:
    """Open the sinks; yield a function that writes a frame with a face of this label."""
    feed = Feed()
    with opened(run, options) as write:

        def show(label: str) -> None:
            _, result = feed.next(label)
            write(Frame(0, result.monotonic_s, result.wall_s, barcode(0)), result)

        yield show


def test_a_full_disk_is_reported_once_and_the_next_clips_follow(small_disk, notices, fill, monkeypatch):
    quicken(monkeypatch)
    run, folder = run_of(notices.append, disk_reserve=0), small_disk / "clips"
    with shown(run, ClipOptions(event_clips=folder, clip_before=0.2, clip_after=0.2)) as show:
        ballast = fill(small_disk)
        labels = itertools.cycle(("happy", "sad"))
        wait_until(lambda: show(next(labels)) or counts(run, "event clips")["dropped"].get("disk full", 0) > 4)
        assert len(notices) == 1, "frames in memory end no outage"
        assert clips_of(folder) == []
        ballast.unlink()
        # The clip is complete when a frame follows its end.
        wait_until(lambda: show("happy") or len(notices) == 2 or (not clips_of(folder) and show("sad")))
    assert [bool(re.search("fails, the run continues", line)) for line in notices] == [True, False]
    assert all(numbers(clip) for clip in clips_of(folder))
    assert counts(run, "event clips")["dropped"].keys() >= {"disk full"}


def test_the_page_lists_clips_and_serves_parts_of_them(tmp_path, notices):
    run = run_of(notices.append, Source(live=False, fps=FPS))
    options = ClipOptions(event_clips=tmp_path / "clips", clip_before=1.0, clip_after=1.0)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    play(run, options, labels_with_events(60, [30]), zones=(parse_zone("mat-1=0,0,1,0,1,1"),))
    (tmp_path / "clips/mine.mp4").write_bytes(b"mine")
    run = run_of(notices.append)
    options.open(run)
    page = WebOptions(web="0").open(run)

    def get(path: str, **headers: str) -> tuple[int, str, bytes]:
        status, answer, body = request(page.url, "GET", path, **headers)
        return status, answer["content-type"].partition(";")[0], body

    with page:
        assert json.loads(get("/api/state")[2])["has_clips"] is True
        newest, oldest = json.loads(get("/api/clips")[2])
        assert [(clip["label"], clip["zone"]) for clip in (newest, oldest)] == [("happy", "mat-1"), ("calm", "mat-1")]
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", newest["time"])
        stored = (tmp_path / "clips" / newest["clip"]).read_bytes()
        assert get(f"/clips/{newest['clip']}") == (200, "video/mp4", stored)
        assert get(f"/clips/{newest['clip']}", Range="bytes=4-7")[::2] == (206, b"ftyp")
        assert get(f"/clips/{newest['picture']}")[:2] == (200, "image/jpeg")
        for name in ("mine.mp4", "..%2Fsecret.mp4", "nothing", "clips"):
            assert get(f"/clips/{name}")[0] == 404


def test_a_clip_begins_after_a_gap_and_not_before_it() -> None:
    ring = PacketRing(20.0)
    for number, time_s in enumerate([0.0, 0.1, 0.2, 8.0, 8.1, 8.2]):
        ring.add(EncodedPacket(b"x", time_us=round(1e6 * time_s), is_key=number in (0, 4)), time_s)
    assert [packet.time_us for packet in ring.since(0.0)] == [8_100_000, 8_200_000]


@pytest.mark.parametrize("live", [True, False])
def test_a_clip_whose_folder_was_moved_begins_again(tmp_path, notices, live):
    run = run_of(notices.append, Source(live=live, fps=FPS), disk_reserve=0)
    folder = tmp_path / "clips"
    labels = itertools.cycle(("happy", "sad"))
    with shown(run, ClipOptions(event_clips=folder, clip_before=0.2, clip_after=200.0)) as show:
        wait_until(lambda: show(next(labels)) or len(clips_of(folder)) == 1)
        (before,) = clips_of(folder)
        folder.rename(tmp_path / "moved")
        wait_until(lambda: show(next(labels)) or len(clips_of(folder)) == 1)
    assert clips_of(folder) == [before]
    assert numbers(before)
    assert before.with_suffix(".jpg").is_file()
    assert (counts(run, "event clips")["dropped"], notices) == ({}, [])
