"""What is measured, in which order, and what the report makes of it."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edgekit.boards import Board, Interpreter, Throttling, read_board
from edgekit.device import benchmark
from edgekit.device.benchmark import KINDS, MIN_ITERATIONS, Cell, Clip, load_clip, measure, plan_cells
from edgekit.device.benchmark_report import describe_model, report_document, report_view
from edgekit.device.detect import WholeFrame
from edgekit.device.sources.frame import Frame, RecordedSource
from edgekit.errors import InputError, SourceError
from edgekit.files import sha256_of
from edgekit.preprocess import ImageU8

FRAMES = tuple(np.full((6, 8, 3), value, np.uint8) for value in range(3))
CLIP = Clip("three", FRAMES, True, 0.0, "0" * 64)


class Frames(RecordedSource):
    """Frames of 1 MiB, numbered in every pixel."""

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
    """Remembers the frames it saw and the threads OpenCV had."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.opencv_threads = 0

    def detect(self, image_bgr: ImageU8):  # type: ignore[no-untyped-def]
        self.seen.append(int(image_bgr[0, 0, 0]))
        self.opencv_threads = cv2.getNumThreads()
        return super().detect(image_bgr)


def test_every_combination_is_planned_once_in_an_order_the_seed_decides() -> None:
    models = [("a", Path("a")), ("b", Path("b"))]
    cells = plan_cells(models, (1, 2), KINDS, seed=3)
    combinations = set(itertools.product("ab", (1, 2), KINDS))
    assert {(cell.model, cell.intra_op_threads, cell.kind) for cell in cells} == combinations
    assert len(cells) == len(combinations)
    assert cells == plan_cells(models, (1, 2), KINDS, seed=3)
    assert cells != plan_cells(models, (1, 2), KINDS, seed=4)
    assert cells != sorted(cells, key=lambda cell: (cell.model, cell.intra_op_threads, cell.kind))


@pytest.mark.parametrize(
    ("models", "threads", "message"),
    [
        ([("a", Path("a"))] * 2, (1,), "model given twice: a"),
        ([("a", Path("a"))], (2, 2), "thread count given twice: 2"),
        ([("a", Path("a"))], (0,), "thread count 0 is below 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    models: list[tuple[str, Path]], threads: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_cells(models, threads, KINDS, seed=0)


def test_a_clip_holds_what_fits_and_says_when_there_is_more() -> None:
    source = Frames(5)
    clip = load_clip(source, limit_mib=3)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [0, 1, 2]
    assert (clip.complete, clip.mib) == (False, 3.0)
    assert source.closed
    assert load_clip(Frames(3), limit_mib=3).complete


def test_clips_of_other_pixels_have_other_sums() -> None:
    assert load_clip(Frames(2), 3).sha256 == load_clip(Frames(2), 3).sha256
    assert load_clip(Frames(2), 3).sha256 != load_clip(Frames(3), 3).sha256


def test_a_source_without_frames_is_an_error() -> None:
    with pytest.raises(SourceError, match="'frames' gave no frame"):
        load_clip(Frames(0), 3)


@pytest.mark.parametrize("kind", ["inference", "classifier"])
def test_the_classifier_is_measured_for_at_least_the_least_iterations(tiny_model: Path, kind: benchmark.Kind) -> None:
    done = measure(Cell("tiny", tiny_model, 1, kind), seconds=0.001, batch=4)
    assert done.latency.count >= MIN_ITERATIONS
    assert done.warm_up_iterations >= 10
    assert done.batch == 4
    assert done.images_per_s == pytest.approx(4 * done.latency.count / done.busy_s)
    assert done.busy_s * 1e3 == pytest.approx(done.latency.mean_ms * done.latency.count)
    assert (done.detector, done.faces_per_frame, done.stages) == (None, None, {})
    assert done.load_ms > 0
    assert done.resident_mib > 1


def test_a_cell_is_measured_for_at_least_its_seconds(tiny_model: Path) -> None:
    done = measure(Cell("tiny", tiny_model, 1, "inference"), seconds=0.2, batch=1)
    assert done.busy_s >= 0.2
    assert done.latency.count > MIN_ITERATIONS


def test_a_pipeline_plays_the_clip_over_and_over_and_counts_after_the_warm_up(tiny_model: Path) -> None:
    spy = Spy()
    threads = []
    done = measure(
        Cell("tiny", tiny_model, 3, "pipeline"),
        seconds=0.001,
        batch=4,
        clip=CLIP,
        make_detector=lambda count: (threads.append(count), spy)[1],
    )
    total = done.warm_up_iterations + done.latency.count
    assert spy.seen == [index % 3 for index in range(total)]
    assert (threads, spy.opencv_threads) == ([3], 3)
    assert (done.batch, done.detector, done.faces_per_frame) == (1, "none", 1.0)
    assert set(done.stages) == {"detect", "crop", "classify"}
    assert {summary.count for summary in done.stages.values()} == {done.latency.count}
    assert sum(summary.mean_ms for summary in done.stages.values()) <= done.latency.mean_ms


def test_progress_ends_at_one_and_never_falls(tiny_model: Path) -> None:
    shares: list[float] = []
    measure(Cell("tiny", tiny_model, 1, "inference"), seconds=1.2, batch=1, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) >= 3
    assert shares[-1] == 1.0


def test_a_model_that_is_none_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx"):
        describe_model("text", path)


@pytest.fixture(scope="module")
def measurements(tiny_model: Path) -> list[benchmark.Measurement]:
    cells = plan_cells([("tiny", tiny_model)], (1, 2), KINDS, seed=1)
    return [measure(cell, seconds=0.001, batch=1, clip=CLIP, make_detector=lambda _: WholeFrame()) for cell in cells]


def test_the_report_is_one_json_document_with_units_in_its_names(
    tiny_model: Path, measurements: list[benchmark.Measurement]
) -> None:
    document = report_document(
        board=read_board(),
        models=[describe_model("tiny", tiny_model)],
        measurements=measurements,
        clip=CLIP,
        settings={"seconds": 0.001},
    )
    assert json.loads(json.dumps(document, allow_nan=False)) is not None
    assert document["schema"] == "edgekit.bench/1.0"
    assert set(document["versions"]) == {"edgekit", "python", "numpy", "onnxruntime", "opencv"}
    assert document["models"][0] | {"sha256": "", "size_bytes": 0} == {
        "name": "tiny",
        "sha256": "",
        "size_bytes": 0,
        "architecture": "mean",
        "precision": "float32",
        "input_hw": (8, 8),
        "labels": 3,
    }
    assert document["models"][0]["sha256"] == sha256_of(tiny_model)
    assert document["clip"]["first_frame_wh"] == [8, 6]
    assert document["settings"] == {"min_iterations": MIN_ITERATIONS, "seconds": 0.001}
    assert [cell["kind"] for cell in document["cells"]] == [done.cell.kind for done in measurements]
    for cell in document["cells"]:
        assert set(cell["latency"]) == {"count", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms"}
        assert ("stages" in cell) == (cell["kind"] == "pipeline")
        assert {"governor", "temperature_c", "clock_mhz", "throttling"} <= set(cell["before"])
    assert document["peak_resident_mib"] > 10


def view_text(board: Board, measurements: list[benchmark.Measurement]) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report_view(board, measurements))
    return console.export_text()


def test_the_table_has_a_row_a_cell_in_a_readable_order(measurements: list[benchmark.Measurement]) -> None:
    rows = [line.split()[:2] for line in view_text(read_board(), measurements).splitlines() if line.strip()]
    assert [row for row in rows if row[0] in KINDS] == [[kind, threads] for kind in KINDS for threads in "12"]


def test_every_model_has_a_table_of_its_own(measurements: list[benchmark.Measurement]) -> None:
    other = [replace(done, cell=replace(done.cell, model="folder/other.onnx")) for done in measurements]
    text = view_text(read_board(), [*measurements, *other])
    assert (text.count("other.onnx"), text.count("tiny"), text.count("p99 ms")) == (1, 1, 2)


def test_the_table_marks_an_emulated_and_a_throttled_board(measurements: list[benchmark.Measurement]) -> None:
    plain = replace(read_board(Path("/nowhere"), Interpreter()), virtualization="none")
    assert not {"EMULATED", "THROTTLED"} & set(view_text(plain, measurements).split())
    assert "EMULATED" in view_text(replace(plain, virtualization="emulator"), measurements)
    hot = [replace(done, after=replace(done.after, throttling=Throttling(0x4))) for done in measurements]
    assert "THROTTLED" in view_text(plain, hot)
    past = [replace(done, after=replace(done.after, throttling=Throttling(0x40000))) for done in measurements]
    assert "THROTTLED" not in view_text(plain, past)


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (2.0, True), (None, False)])
def test_the_table_says_when_other_programs_were_running(
    measurements: list[benchmark.Measurement], load: float | None, busy: bool
) -> None:
    board = replace(read_board(), processors=4)
    first = replace(measurements[0], before=replace(measurements[0].before, load_1min=load))
    assert ("BUSY" in view_text(board, [first, *measurements[1:]])) == busy
