"""Measures one cell in this process: warm-up until the times are stable, then recorded iterations.

The state of the machine (temperature, clock, throttle flags) is recorded with the iterations. Each cell is measured in
several such processes (`rounds.py`).

In a run, the detector works in some frames only, so times of single frames differ by an order of magnitude and their
median would not change with the detector's speed. A sample of a run is therefore the mean time per frame of a block of
consecutive frames, long enough for at least two detections.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np

from edgekit.boards import Conditions, read_conditions
from edgekit.contract import Subject
from edgekit.device.benchmark.jobs import CachedSource, Job
from edgekit.device.detection import Detector
from edgekit.device.detections import Detections, FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import contract_in
from edgekit.device.engines.session import plan_threads
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.health.sampler import read_process
from edgekit.device.pipeline import StreamOptions
from edgekit.device.pipeline.loop import crop_faces, frame_results
from edgekit.device.pipeline.stream import create_localizer
from edgekit.device.pipeline.summary import LatencyMeter, summarize
from edgekit.device.tracking import FaceTracker, Localizer, WholeImage
from edgekit.errors import EdgekitError
from edgekit.preprocess import to_input
from edgekit.report.document import BoardState, Latency, MachineReading, ProcessResult, ThreadUse, WarmUp
from edgekit.report.statistics import is_stable

MAX_WARM_UP_S = 10.0
# The adaptive schedule of a run detects at least every 10 frames.
BLOCK_FRAMES = 20
_MIN_SAMPLES = 5
# A window of the warm-up has at least this time and number of iterations.
_WINDOW_MS = 100.0
_WINDOW_ITERATIONS = 5
# Readings of the machine: period, and maximum number of a measurement.
_READ_PERIOD_S = 1.0
_MAX_READINGS = 200
# Digits of times in milliseconds: a small net may take a few microseconds, and rounding must not move a median out of
# its interval.
_DIGITS = 5
# The frame of inputs that are made here, and of estimates of the loop.
FRAME_WH = (640, 480)
_FACE_XYXY = (240.0, 160.0, 400.0, 320.0)


class Run(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Measurement of a cell in one process: the part for the report, `process`, and the samples.

    `samples_ms` are the times of iterations in their order; see `CellResult` for what an iteration is. The kinds
    "frame" and "run" set `detector`, `faces_per_frame` and `stages_ms`; "run" also sets `ages_ms` (capture to result)
    and `threads`. `process.started_s` is on the system's monotonic clock.
    """

    process: ProcessResult
    batch: int
    intra_op_threads: int
    samples_ms: tuple[float, ...]
    detector: str | None = None
    faces_per_frame: float | None = None
    stages_ms: dict[str, list[float]] = msgspec.field(default_factory=dict)
    ages_ms: tuple[float, ...] = ()
    threads: ThreadUse | None = None


class _Sample(NamedTuple):
    """Mean time of `iterations` consecutive iterations, and the results of their frames."""

    ms: float
    iterations: int
    results: Sequence[FrameResult] = ()


def measure(job: Job, make_detector: Callable[[int], Detector] | None = None) -> Run:
    """Load a job's model, warm up, and time iterations in this process until there are enough.

    OpenCV's number of threads is set for the whole process and not reset afterwards.

    Args:
        job: What to measure and how.
        make_detector: Returns the detector for a number of threads; default: the job's detector.

    Raises:
        InputError: The model cannot be loaded.
    """
    cell, contract = job.cell, contract_in(job.cell.path)
    is_run, detects = cell.kind == "run", contract.subject == "face"
    if is_run:  # threads as in `edgekit run`, unless the cell states their number
        plan = plan_threads(staged=None, threads=cell.threads, detects=detects)
    else:  # no thread per stage
        plan = plan_threads(staged=False, threads=cell.threads or 1, detects=detects)
    cv2.setNumThreads(plan.opencv)
    before = read_conditions()
    loading_s = time.perf_counter()
    classifier = Classifier(cell.path, plan.classifier)
    load_ms = _ms_since(loading_s)

    source = CachedSource(job.cache) if job.cache else None
    make = partial(make_detector or job.make_detector, plan.detector)
    localizer: Localizer | None = None
    if source is None:  # kind "net" needs no frames
        samples = _net_samples(classifier, job.batch)
    elif is_run:
        options = StreamOptions()
        localizer = create_localizer(contract, source, options, make)
        smoothing = {"smooth_s": options.smooth_s, "classify_every": options.classify_every}
        samples = _frame_samples(source, localizer, classifier, BLOCK_FRAMES, plan.staged, **smoothing)
    else:  # kind "frame"
        # Every frame is detected, or all of it is classified.
        localizer = FaceTracker(make(), schedule=None) if detects else WholeImage(region=None, is_sequence=True)
        samples = _frame_samples(source, localizer, classifier, frames=1, threaded=False)
    detector = localizer.detector_name if localizer else None

    with closing(samples):  # closing ends the threads of the loop
        warm_up = _warm_up(samples, min(job.seconds, MAX_WARM_UP_S))
        recorder = _Recorder(job)
        while not recorder.done:
            recorder.add(next(samples))
    if source is not None:
        source.unload()  # before `result` reads the memory in use
    return Run(
        process=recorder.result(load_ms, warm_up, before),
        batch=job.batch,
        intra_op_threads=plan.classifier,
        samples_ms=tuple(recorder.samples_ms),
        detector=detector,
        faces_per_frame=None if detector is None else recorder.faces / recorder.iterations,
        stages_ms=recorder.stages_ms,
        ages_ms=tuple(recorder.ages_ms) if is_run else (),
        threads=plan if is_run else None,
    )


def latency_of(samples_ms: Iterable[float]) -> Latency:
    """Return the summary of at least one sample."""
    return Latency(**{name: round(value, _DIGITS) for name, value in asdict(summarize(samples_ms)).items()})


def board_state(conditions: Conditions) -> BoardState:
    """Return the state of the board in the form that a report contains."""
    return msgspec.convert(conditions.as_document(), BoardState)


def example_boxes(subject: Subject, count: int) -> Detections:
    """Return `count` equal boxes in a frame of `FRAME_WH`: faces of 160 pixels, or for a whole image the frame."""
    box = _FACE_XYXY if subject == "face" else (0, 0, *FRAME_WH)
    xyxy = np.tile(np.array(box, np.float32), (count, 1))
    return Detections(xyxy, np.ones(count, np.float32), are_regions=subject == "image")


def _net_samples(classifier: Classifier, batch: int) -> Generator[_Sample, None, None]:
    """Yield without end the time of an inference on always the same batch, `batch` crops of an image of noise."""
    contract = classifier.contract
    noise_bgr = np.random.default_rng(0).integers(0, 256, (*reversed(FRAME_WH), 3), np.uint8)  # (H, W, 3)
    frame = Frame(0, 0.0, 0.0, noise_bgr)  # its number and times have no effect
    crops = crop_faces(frame, example_boxes(contract.subject, batch), contract)
    tensor = to_input(crops, contract.input)
    while True:
        started_s = time.perf_counter()
        classifier.infer(tensor)
        yield _Sample(_ms_since(started_s), iterations=1)  # of the whole batch


def _frame_samples(
    source: CachedSource, localizer: Localizer, classifier: Classifier, frames: int, threaded: bool, **smoothing: Any
) -> Generator[_Sample, None, None]:
    """Yield without end the mean time per frame of the next `frames` frames in the loop of `edgekit run`.

    `smoothing` are arguments of `frame_results`, which is that loop.
    """
    times = presentation_time_s(source)
    # The loop needs a `LatencyMeter`; its figures are not used.
    loop = frame_results(
        source, localizer, classifier, LatencyMeter(), presentation_time_s=times, threaded=threaded, **smoothing
    )
    with closing(loop):
        next(loop)  # not measured: it starts the threads
        started_s = time.perf_counter()
        while True:
            results = [next(loop)[1] for _ in range(frames)]  # the loop yields (frame, result)
            ended_s = time.perf_counter()
            yield _Sample(1e3 * (ended_s - started_s) / frames, frames, results)
            # While the caller records this sample, threads work on the next frames already.
            started_s = ended_s if threaded else time.perf_counter()


def _warm_up(samples: Generator[_Sample, None, None], max_s: float) -> WarmUp:
    """Take and drop samples until their times are stable, for at most about `max_s` seconds.

    The samples are taken in windows. The times are stable if the medians of the last windows are about equal.
    """
    started_s = time.perf_counter()
    iterations = 0
    medians_ms: list[float] = []  # one per window
    while True:
        times_ms: list[float] = []
        window_iterations, window_ms = 0, 0.0
        while window_iterations < _WINDOW_ITERATIONS or window_ms < _WINDOW_MS:
            sample = next(samples)
            times_ms.append(sample.ms)
            window_iterations += sample.iterations
            window_ms += sample.ms * sample.iterations
        iterations += window_iterations
        medians_ms.append(float(np.median(times_ms)))
        elapsed_s, stable = time.perf_counter() - started_s, is_stable(medians_ms)
        if stable or elapsed_s > max_s:
            return WarmUp(iterations=iterations, seconds=round(elapsed_s, 3), stable=stable)


class _Recorder:
    """Records samples until there are enough, and the state of the machine at intervals; see `measure`."""

    def __init__(self, job: Job) -> None:
        """Begin now; the numbers of the job state when there are enough samples."""
        self._job = job
        self._others = OtherLoad()
        # Of all samples so far.
        self.samples_ms: list[float] = []
        self.ages_ms: list[float] = []
        self.stages_ms: dict[str, list[float]] = {}
        self.iterations = self.faces = 0
        self._busy_s = 0.0  # measured time, without the pauses between iterations
        self._readings: list[MachineReading] = []
        # The time, and the values of `_busy_s` and `iterations`, at the last reading of the machine.
        self._started_s = self._read_s = time.monotonic()
        self._read_busy_s, self._read_iterations = 0.0, 0

    @property
    def done(self) -> bool:
        """Whether there are enough samples, iterations and seconds."""
        enough = self.iterations >= self._job.min_iterations and self._busy_s >= self._job.seconds
        return enough and len(self.samples_ms) >= _MIN_SAMPLES

    def add(self, sample: _Sample) -> None:
        """Add a sample; at intervals and after the last sample, also record the state of the machine."""
        self.samples_ms.append(sample.ms)
        self.iterations += sample.iterations
        self._busy_s += sample.ms * sample.iterations / 1e3
        for result in sample.results:
            for stage, time_ms in result.stage_ms.items():
                self.stages_ms.setdefault(stage, []).append(time_ms)
            self.ages_ms.append(result.age_ms)
            self.faces += len(result.faces)
        if self.done or time.monotonic() - self._read_s >= max(_READ_PERIOD_S, self._job.seconds / _MAX_READINGS):
            self._read_machine()

    def _read_machine(self) -> None:
        """Append a reading: temperature, clock and throttle flags, and the images per second since the last reading."""
        at_s, state = time.monotonic() - self._started_s, read_conditions()
        images = self._job.batch * (self.iterations - self._read_iterations)
        busy_s = max(self._busy_s - self._read_busy_s, 1e-9)  # not 0, for the division
        self._readings.append(
            MachineReading(
                at_s=round(at_s, 3),
                images_per_s=round(images / busy_s, 3),
                temperature_c=state.temperature_c,
                clock_mhz=state.clock_mhz,
                throttle_flags=f"{state.throttling.bits:#x}" if state.throttling else None,
            )
        )
        self._read_iterations, self._read_busy_s, self._read_s = self.iterations, self._busy_s, time.monotonic()

    def result(self, load_ms: float, warm_up: WarmUp, before: Conditions) -> ProcessResult:
        """Return the result of this process; its quality flags are empty, because `rounds.py` determines them."""
        own = read_process()
        assert own is not None  # this process can be read
        return ProcessResult(
            started_s=self._started_s,
            elapsed_s=round(time.monotonic() - self._started_s, 3),
            busy_s=round(self._busy_s, 3),
            load_ms=round(load_ms, 3),
            warm_up=warm_up,
            latency=latency_of(self.samples_ms),
            images_per_s=round(self._job.batch * self.iterations / self._busy_s, 3),
            resident_mib=round(own.resident_mib, 1),
            others_processors=self._others.processors(),
            before=board_state(before),
            during=tuple(self._readings),
            after=board_state(read_conditions()),
            quality_flags=(),
        )


class OtherLoad:
    """Mean number of processors in use by other programs, since this object was created.

    In a virtual machine, processor time that the host gives to other guests counts as used.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        own_processor_s: Callable[[], float] = lambda: sum(os.times()[:4]),  # without the last one, the elapsed time
    ) -> None:
        """Begin now. The arguments replace the machine and this process in tests.

        Args:
            root: The folder with `proc`.
            clock: Returns the time in seconds.
            own_processor_s: Returns the processor time that this process and its children have used.
        """
        self._stat = root / "proc/stat"
        self._clock = clock
        self._own_processor_s = own_processor_s
        self._started = self._now()

    def processors(self) -> float | None:
        """Return the mean number of processors, or None if the kernel does not provide the processors' times."""
        (started_s, before_s), (now_s, after_s) = self._started, self._now()
        if before_s is None or after_s is None or now_s <= started_s:
            return None
        return round(max(0.0, after_s - before_s) / (now_s - started_s), 3)

    def _now(self) -> tuple[float, float | None]:
        """Return the time, and the processor seconds that other programs have used since boot.

        The second value is None if the kernel does not provide it.
        """
        # The first line of /proc/stat has eight times of all processors together, in clock ticks.
        match = re.match(r"cpu((?: +\d+){8})", self._stat.read_text()) if self._stat.exists() else None
        if match is None:
            return self._clock(), None
        # Waiting for a disk takes no processor time; `steal` is time that other virtual machines have taken.
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, match.group(1).split())
        busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        # Own time counts from the start of this process, not from boot: only differences of two calls have a meaning.
        return self._clock(), busy_s - self._own_processor_s()


def _ms_since(started_s: float) -> float:
    """Return the milliseconds since a time of `time.perf_counter`."""
    return (time.perf_counter() - started_s) * 1e3


_PR_SET_PDEATHSIG = 1


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Why a job cannot be measured, with the exit code of the error."""

    error: str
    exit_code: int = 1


def main() -> int:
    """Measure the job on stdin and write the result to stdout; the exit code is 0 unless the process crashes."""
    # The kernel ends this process when the one that started it is killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries may print on stdout; the result has its own descriptor.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = Job.from_json(sys.stdin.buffer.read())
    result: Run | Failure
    try:
        result = measure(job)
    except EdgekitError as error:
        result = Failure(str(error), error.exit_code)
    except MemoryError:
        result = Failure(f"not enough memory to measure '{job.cell.model}': close other programs")
    channel.write(msgspec.json.encode(result))
    channel.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
