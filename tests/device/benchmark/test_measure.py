"""The measurements of one process, the order of cells, the frame cache, and the machine readings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.boards import Conditions, Throttling
from edgekit.device.benchmark import sampling
from edgekit.device.benchmark.cells import Cell, plan_cells, plan_rounds
from edgekit.device.benchmark.document import describe_model
from edgekit.device.benchmark.frame_cache import FrameCache, load_frame_cache, map_frame_cache, save_frame_cache
from edgekit.device.benchmark.loop import BLOCK_FRAMES
from edgekit.device.benchmark.machine_watch import MachineWatch, OtherLoad
from edgekit.device.benchmark.measure import MIN_ITERATIONS, Inputs, measure
from edgekit.device.detection import Detections, WholeFrame
from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.sources.live import LiveSource
from edgekit.errors import InputError, SourceError
from edgekit.files import sha256_of
from edgekit.preprocess import ImageU8
from edgekit.report.document import KINDS, Kind

FRAMES = tuple(np.full((6, 8, 3), value, np.uint8) for value in range(3))
CACHE = FrameCache("three", FRAMES, True, 0.0, "0" * 64)
UNKNOWN = Conditions(*[None] * 9)


class Frames(RecordedSource):
    """A source of 1 MiB frames; each pixel of a frame is its number."""

    name = "frames"
    fps = None

    def __init__(self, count: int) -> None:
        self.frame_count = count
        self.closed = False

    def __exit__(self, *exception: object) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[Frame]:
        for sequence in range(self.frame_count):
            yield Frame(sequence, 0.0, 0.0, np.full((512, 2048, 1), sequence, np.uint8))


class Spy(WholeFrame):
    """A detector that records its frames and OpenCV's thread count."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.opencv_threads = 0

    def detect(self, image_bgr: ImageU8):  # type: ignore[no-untyped-def]
        self.seen.append(int(image_bgr[0, 0, 0]))
        self.opencv_threads = cv2.getNumThreads()
        return super().detect(image_bgr)


MODELS = [("a", Path("a")), ("b", Path("b"))]


def test_every_combination_is_planned_once() -> None:
    cells = plan_cells(MODELS, (1, 2), KINDS)
    combinations = set(itertools.product("ab", (1, 2), KINDS))
    assert {(cell.model, cell.threads, cell.kind) for cell in cells} == combinations
    assert len(cells) == len(combinations)


@pytest.mark.parametrize(
    ("models", "kinds", "message"),
    [
        ([], KINDS, "no model is given"),
        (MODELS, [], "no kind is given"),
        (MODELS, ["loop", "loop"], "kind given twice: loop"),
        (MODELS, ["pipeline"], "kind 'pipeline' is not known: choose from inference, classifier, per-frame"),
    ],
)
def test_a_plan_with_wrong_kinds_is_refused(models: list[tuple[str, Path]], kinds: list[Kind], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_cells(models, None, kinds)


def test_without_thread_counts_the_loop_is_planned_once_per_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.device.benchmark.cells.available_processors", lambda: 4)
    cells = plan_cells(MODELS, None, ["inference", "loop"])
    assert [(cell.model, cell.kind, cell.threads) for cell in cells] == [
        (model, kind, threads)
        for model in "ab"
        for kind, threads in (("inference", 1), ("inference", 4), ("loop", None))
    ]


def test_every_round_has_every_cell_in_an_order_of_its_own_that_the_seed_decides() -> None:
    cells = plan_cells(MODELS, (1, 2), KINDS)
    order = plan_rounds(cells, 3, seed=3)
    rounds = [order[first : first + len(cells)] for first in range(0, len(order), len(cells))]
    assert len(rounds) == 3
    assert all(set(one) == set(cells) and len(one) == len(cells) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert order == plan_rounds(cells, 3, seed=3)
    assert order != plan_rounds(cells, 3, seed=4)


@pytest.mark.parametrize(
    ("models", "threads", "message"),
    [
        ([("a", Path("a"))] * 2, (1,), "model given twice: a"),
        ([("a", Path("a"))], (2, 2), "thread count given twice: 2"),
        ([("a", Path("a"))], (0,), "thread count 0 is below 1"),
    ],
)
def test_a_plan_with_wrong_models_or_threads_is_refused(
    models: list[tuple[str, Path]], threads: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_cells(models, threads, KINDS)


def test_a_cache_holds_the_frames_that_fit_and_is_incomplete_if_there_are_more() -> None:
    source = Frames(5)
    cache = load_frame_cache(source, limit_mib=3)
    assert [int(frame[0, 0, 0]) for frame in cache.frames] == [0, 1, 2]
    assert (cache.complete, cache.mib) == (False, 3.0)
    assert source.closed
    assert load_frame_cache(Frames(3), limit_mib=3).complete


def test_caches_of_other_pixels_have_other_sums() -> None:
    assert load_frame_cache(Frames(2), 3).sha256 == load_frame_cache(Frames(2), 3).sha256
    assert load_frame_cache(Frames(2), 3).sha256 != load_frame_cache(Frames(3), 3).sha256


def test_a_source_without_frames_is_an_error() -> None:
    with pytest.raises(SourceError, match="'frames' has no frame"):
        load_frame_cache(Frames(0), 3)


def test_a_saved_cache_is_mapped_unchanged_with_frames_of_any_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = tuple(random.integers(0, 256, (height, 5, 3), np.uint8) for height in (4, 7, 2))
    path = tmp_path / "cache"
    with path.open("wb") as stream:
        save_frame_cache(replace(CACHE, fps=30.0, frames=frames), stream)
    before = path.read_bytes()
    mapped = map_frame_cache(path)
    assert replace(mapped, frames=()) == replace(CACHE, fps=30.0, frames=())
    assert all(np.array_equal(one, other) for one, other in zip(frames, mapped.frames, strict=True))
    mapped.frames[0][:] = 0
    assert path.read_bytes() == before


class Reader(WholeFrame):
    """Reads all pixels of a frame."""

    def detect(self, image_bgr: ImageU8):  # type: ignore[no-untyped-def]
        image_bgr.max()
        return super().detect(image_bgr)


@pytest.mark.parametrize("kind", ["per-frame", "loop"])
def test_the_memory_of_a_process_excludes_the_frames_of_the_benchmark(
    tiny_model: Path, tmp_path: Path, kind: Kind
) -> None:
    path = tmp_path / "cache"
    with path.open("wb") as stream:
        save_frame_cache(replace(CACHE, frames=(np.ones((1024, 1024, 3), np.uint8),) * 60), stream)

    def resident_mib(cache: FrameCache) -> float:
        inputs = Inputs(cache, make_detector=lambda _: Reader())
        return measure(Cell("tiny", tiny_model, 1, kind), inputs, seconds=0.001).process.resident_mib

    without_mib = resident_mib(replace(CACHE, frames=(np.ones((1024, 1024, 3), np.uint8),)))
    assert resident_mib(map_frame_cache(path)) < without_mib + 90  # the cache has 180 MiB


@pytest.mark.parametrize("kind", ["inference", "classifier"])
def test_the_classifier_is_measured_for_at_least_the_least_iterations(tiny_model: Path, kind: Kind) -> None:
    done = measure(Cell("tiny", tiny_model, 1, kind), seconds=0.001, batch=4)
    process = done.process
    assert len(done.samples_ms) >= MIN_ITERATIONS
    assert process.warm_up.iterations >= 5
    assert done.batch == 4
    assert process.images_per_s == pytest.approx(4e3 * len(done.samples_ms) / sum(done.samples_ms), rel=1e-3)
    assert (done.detector, done.faces_per_frame, done.stages_ms) == (None, None, {})
    assert process.load_ms > 0
    assert process.resident_mib > 1
    assert process.elapsed_s >= process.busy_s
    assert len(process.during) == 1
    assert process.latency.count >= MIN_ITERATIONS


def test_a_cell_is_measured_for_at_least_its_seconds(tiny_model: Path) -> None:
    done = measure(Cell("tiny", tiny_model, 1, "inference"), seconds=0.2, min_iterations=1, batch=1)
    assert done.process.busy_s >= 0.2


def test_frames_are_repeated_and_counted_after_the_warm_up(tiny_model: Path) -> None:
    spy = Spy()
    threads = []
    done = measure(
        Cell("tiny", tiny_model, 3, "per-frame"),
        Inputs(CACHE, make_detector=lambda count: (threads.append(count), spy)[1]),
        seconds=0.001,
        batch=4,
    )
    total = done.process.warm_up.iterations + len(done.samples_ms)
    assert spy.seen == [index % 3 for index in range(total)]
    assert (threads, spy.opencv_threads) == ([3], 3)
    assert (done.batch, done.detector, done.faces_per_frame) == (1, "none", 1.0)
    assert set(done.stages_ms) == {"detect", "crop", "classify"}
    assert {len(times) for times in done.stages_ms.values()} == {len(done.samples_ms)}
    assert sum(sum(times) for times in done.stages_ms.values()) <= sum(done.samples_ms)


class Finder(Spy):
    """A detector that finds one face in each frame; its faces are tracked, because its name is not "none"."""

    name = "finder"

    def detect(self, image_bgr: ImageU8) -> Detections:
        super().detect(image_bgr)
        return Detections(np.array([[20, 10, 60, 50]], np.float32), np.ones(1, np.float32))


TEXTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.mark.parametrize("processors", [1, 2])
def test_the_loop_is_that_of_a_run_with_its_threads_and_tracker(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    monkeypatch.setattr("edgekit.device.pipeline.threads.available_processors", lambda: processors)
    finder = Finder()
    video = FrameCache("video", (TEXTURE,) * 3, True, 0.0, "0" * 64, fps=25.0)
    done = measure(Cell("tiny", tiny_model, None, "loop"), Inputs(video, make_detector=lambda _: finder), seconds=0.01)
    frames = len(done.samples_ms) * BLOCK_FRAMES
    assert frames >= MIN_ITERATIONS
    assert done.threads is not None
    assert (done.threads.staged, done.intra_op_threads) == (processors > 1, 1)
    assert (done.detector, done.faces_per_frame) == ("finder", 1.0)
    assert len(done.ages_ms) == len(done.stages_ms["classify"]) == frames
    assert ("wait" in done.stages_ms) == done.threads.staged
    # The face does not move, so it is tracked between detections and detected in one frame of ten.
    assert frames / 15 < len(done.stages_ms["detect"]) < frames / 5
    assert done.process.images_per_s == pytest.approx(frames / done.process.busy_s, rel=0.05)


def test_the_loop_takes_the_threads_it_is_given(tiny_model: Path) -> None:
    threads: list[int] = []
    done = measure(
        Cell("tiny", tiny_model, 3, "loop"),
        Inputs(CACHE, make_detector=lambda count: (threads.append(count), WholeFrame())[1]),
        seconds=0.01,
    )
    assert (threads, done.intra_op_threads) == ([3], 3)
    assert done.threads is not None
    assert (done.threads.detector, done.threads.classifier, done.threads.opencv) == (3, 3, 3)


def test_an_error_in_the_loop_is_raised(tiny_model: Path) -> None:
    class Broken(WholeFrame):
        def detect(self, image_bgr: ImageU8) -> Detections:
            raise InputError(f"broken detector with {image_bgr.shape}")

    with pytest.raises(InputError, match="broken detector"):
        measure(Cell("tiny", tiny_model, None, "loop"), Inputs(CACHE, make_detector=lambda _: Broken()), seconds=0.01)


class FakeCamera:
    """Returns a frame every 5 ms."""

    fps = 200.0

    def read(self) -> ImageU8:
        time.sleep(0.005)
        return FRAMES[0]

    def close(self) -> None:
        """Do nothing: there is no resource to release."""


def test_a_camera_is_measured_with_the_wait_for_its_frames(tiny_model: Path, notices: list[str]) -> None:
    with LiveSource("camera", FakeCamera, notices.append) as camera:
        done = measure(
            Cell("tiny", tiny_model, 1, "camera"),
            Inputs(camera=camera, make_detector=lambda _: WholeFrame()),
            seconds=0.01,
            min_iterations=20,
            batch=4,
        )
    assert (done.batch, done.faces_per_frame) == (1, 1.0)
    assert set(done.stages_ms) == {"capture", "detect", "crop", "classify"}
    assert len(done.ages_ms) == len(done.samples_ms) == 20
    assert (
        done.process.images_per_s <= 220
    )  # the camera's 200 frames/s, and a margin for a frame that was already captured


def test_a_warm_up_ends_when_the_times_are_stable_or_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])

    def settle(*medians_ms: float) -> sampling.WarmUp | None:
        now[0] = 0.0
        settling = sampling.Settling(max_s=10)
        warm_up = None
        for median_ms in medians_ms:
            assert warm_up is None
            now[0] += 1.0
            warm_up = settling.add_window([median_ms] * 5, 5)
        return warm_up

    assert settle(300, 200, 100, 101) is None
    settled = settle(300, 200, 100, 101, 102)
    assert settled is not None
    assert (settled.stable, settled.iterations, settled.seconds) == (True, 25, 5.0)
    falling = settle(*(2.0**-index for index in range(11)))
    assert falling is not None
    assert (falling.stable, falling.seconds) == (False, 11.0)


def test_progress_ends_at_one_and_never_falls(tiny_model: Path) -> None:
    shares: list[float] = []
    measure(Cell("tiny", tiny_model, 1, "inference"), seconds=1.2, batch=1, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) >= 3
    assert shares[-1] == 1.0


def test_a_model_is_described_by_its_file(tiny_model: Path) -> None:
    model = describe_model("tiny", tiny_model)
    assert (model.architecture, model.precision, model.input_hw, model.labels) == ("mean", "float32", (8, 8), 3)
    assert model.sha256 == sha256_of(tiny_model)


def test_a_model_that_is_none_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx"):
        describe_model("text", path)


def test_a_watch_reads_the_state_periodically_with_the_rate_in_between() -> None:
    now = [0.0]
    hot = replace(UNKNOWN, temperature_c=61.0, clock_mhz=1200.0, throttling=Throttling(0x8))
    watch = MachineWatch(1.0, batch=2, read=lambda: hot, clock=lambda: now[0])
    for iterations in range(1, 26):
        now[0] += 0.1
        watch.update(iterations, busy_s=iterations * 0.05)
    watch.update(25, 25 * 0.05, last=True)
    assert [round(one.at_s, 1) for one in watch.readings] in ([1.0, 2.0, 2.5], [1.1, 2.1, 2.5])
    assert {one.images_per_s for one in watch.readings} == {40.0}
    assert {(one.temperature_c, one.clock_mhz, one.throttle_flags) for one in watch.readings} == {(61.0, 1200.0, "0x8")}


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
