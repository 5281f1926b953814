"""The measurements of one process, the order of cells, and the frame cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.device.benchmark.jobs import CachedSource, Cell, FrameCache, Job, frame_cache, plan_cells, plan_rounds
from edgekit.device.benchmark.measure import BLOCK_FRAMES, OtherLoad, Run, measure
from edgekit.device.detection import Detections, Detector, WholeFrame
from edgekit.device.frame import Frame, RecordedSource
from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8
from edgekit.report.document import KINDS, Kind

SMALL = [np.full((6, 8, 3), value, np.uint8) for value in range(3)]
TEXTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
MODELS = [("a", Path("a")), ("b", Path("b"))]


class Frames(RecordedSource):
    """A source of given images."""

    name = "frames"
    fps = 25.0

    def __init__(self, images: Sequence[ImageU8]) -> None:
        self._images = images
        self.frame_count = len(images)
        self.closed = False

    def __exit__(self, *exception: object) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[Frame]:
        for sequence, image in enumerate(self._images):
            yield Frame(sequence, 0.0, 0.0, image)


@pytest.fixture
def cached(request: pytest.FixtureRequest) -> Callable[[Sequence[ImageU8]], FrameCache]:
    """Return a function that caches images until the end of the test."""

    def make(images: Sequence[ImageU8]) -> FrameCache:
        context = frame_cache(Frames(images), "frames", 1000)
        request.addfinalizer(lambda: context.__exit__(None, None, None))
        return context.__enter__()[0]

    return make


class Spy(WholeFrame):
    """A detector that records its frames and OpenCV's thread count."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.opencv_threads = 0

    def detect(self, image_bgr: ImageU8) -> Detections:
        self.seen.append(int(image_bgr[0, 0, 0]))
        self.opencv_threads = cv2.getNumThreads()
        return super().detect(image_bgr)


class Finder(Spy):
    """A detector that finds one face in each frame; its faces are tracked, because its name is not "none"."""

    name = "finder"

    def detect(self, image_bgr: ImageU8) -> Detections:
        super().detect(image_bgr)
        return Detections(np.array([[20, 10, 60, 50]], np.float32), np.ones(1, np.float32))


def measured(
    model: Path,
    kind: Kind,
    threads: int | None = 1,
    cache: FrameCache | None = None,
    make_detector: Callable[[int], Detector] | None = None,
    **changes: Any,
) -> Run:
    amount = {"seconds": 0.01, "min_iterations": 100, "batch": 1, **changes}
    return measure(Job(Cell("tiny", model, threads, kind), cache=cache, **amount), make_detector)


def test_every_combination_is_planned_once_and_the_run_without_thread_counts_once_per_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgekit.device.benchmark.jobs.available_processors", lambda: 4)
    cells = plan_cells(MODELS[:1], None, ["net", "run"])
    assert [(cell.kind, cell.threads) for cell in cells] == [("net", 1), ("net", 4), ("run", None)]
    cells = plan_cells(MODELS, (1, 2), KINDS)
    combinations = itertools.product("ab", (1, 2), KINDS)
    assert sorted((cell.model, cell.threads, cell.kind) for cell in cells) == sorted(combinations)


def test_every_round_has_every_cell_in_an_order_of_its_own_that_the_seed_decides() -> None:
    cells = plan_cells(MODELS, (1, 2), KINDS)
    order = plan_rounds(cells, 3, seed=3)
    rounds = [order[first : first + len(cells)] for first in range(0, len(order), len(cells))]
    assert len(rounds) == 3
    assert all(set(one) == set(cells) and len(one) == len(cells) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert order == plan_rounds(cells, 3, seed=3)
    assert order != plan_rounds(cells, 3, seed=4)


def test_a_cache_holds_the_frames_that_fit_unchanged_and_of_any_size() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (512, width, 3), np.uint8) for width in (512, 700, 600)]
    source = Frames(images)
    with frame_cache(source, "name", limit_mib=2) as (cache, info):
        assert source.closed
        cached = CachedSource(cache)
        repeated = [frame.image_bgr for frame in itertools.islice(cached, 3)]
        assert all(np.array_equal(one, images[index]) for one, index in zip(repeated, (0, 1, 0), strict=True))
        repeated[0][:] = 0  # the copy of this process
        assert np.array_equal(next(iter(CachedSource(cache))).image_bgr, images[0])
    assert (info.source, info.frames, info.complete, info.first_frame_wh) == ("name", 2, False, (512, 512))
    assert info.memory_mib == pytest.approx(1.8, abs=0.06)
    with frame_cache(Frames(images), "name", limit_mib=9) as (_, whole):
        assert (whole.frames, whole.complete) == (3, True)
        assert whole.pixels_sha256 != info.pixels_sha256
    with pytest.raises(SourceError), frame_cache(Frames([]), "name", 9):
        pass


def test_the_net_is_measured_for_at_least_its_iterations_and_seconds(tiny_model: Path) -> None:
    done = measured(tiny_model, "net", batch=4)
    process = done.process
    assert len(done.samples_ms) == process.latency.count >= 100
    assert process.warm_up.iterations >= 5
    assert process.images_per_s == pytest.approx(4e3 * len(done.samples_ms) / sum(done.samples_ms), rel=1e-3)
    assert (done.detector, done.faces_per_frame, done.stages_ms) == (None, None, {})
    assert process.load_ms > 0
    assert process.resident_mib > 1
    assert process.elapsed_s >= process.busy_s
    (reading,) = process.during
    assert reading.images_per_s == pytest.approx(process.images_per_s, rel=1e-2)
    assert measured(tiny_model, "net", seconds=0.2, min_iterations=1).process.busy_s >= 0.2


def test_frames_are_repeated_and_counted_after_the_warm_up(tiny_model: Path, cached: Callable[..., FrameCache]) -> None:
    spy, threads = Spy(), list[int]()
    done = measured(tiny_model, "frame", 3, cached(SMALL), lambda count: (threads.append(count), spy)[1])
    total = 1 + done.process.warm_up.iterations + len(done.samples_ms)
    assert spy.seen == [index % 3 for index in range(total)]
    assert (threads, spy.opencv_threads) == ([3], 3)
    assert (done.detector, done.faces_per_frame) == ("none", 1.0)
    assert set(done.stages_ms) == {"capture", "detect", "crop", "classify"}
    assert {len(times) for times in done.stages_ms.values()} == {len(done.samples_ms)}
    assert sum(sum(times) for times in done.stages_ms.values()) <= sum(done.samples_ms)


@pytest.mark.parametrize("processors", [1, 2])
def test_the_run_has_the_threads_and_tracker_of_edgekit_run(
    tiny_model: Path, cached: Callable[..., FrameCache], monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    monkeypatch.setattr("edgekit.device.engines.session.available_processors", lambda: processors)
    done = measured(tiny_model, "run", None, cached([TEXTURE] * 3), lambda _: Finder())
    frames = len(done.samples_ms) * BLOCK_FRAMES
    assert frames >= 100
    assert done.threads is not None
    assert (done.threads.staged, done.intra_op_threads) == (processors > 1, 1)
    assert (done.detector, done.faces_per_frame) == ("finder", 1.0)
    assert len(done.ages_ms) == len(done.stages_ms["classify"]) == frames
    assert ("wait" in done.stages_ms) == done.threads.staged
    # The face does not move, so it is tracked between detections and detected in one frame of ten.
    assert frames / 15 < len(done.stages_ms["detect"]) < frames / 5
    assert done.process.images_per_s == pytest.approx(frames / done.process.busy_s, rel=0.05)


def test_the_load_of_others_is_the_busy_time_without_our_own(tmp_path: Path) -> None:
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    # user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second
    stat.write_text("cpu  1000 0 500 90000 700 0 10 20 0 0\ncpu0 1 2 3\n")
    now, own = [0.0], [3.0]
    others = OtherLoad(tmp_path, lambda: now[0], lambda: own[0])
    now[0], own[0] = 100.0, 13.0
    stat.write_text("cpu  4000 0 1500 99999 999 0 10 520 0 0\ncpu0 1 2 3\n")
    assert others.processors() == pytest.approx(0.35)
    stat.write_text("nothing")
    assert others.processors() is None
