"""Measures the loop of `edgekit run` over frames from memory: threads, detection schedule, tracker, smoothing.

The detector runs in some frames only, so times of single frames differ by an order of magnitude and their median would
not change with the detector's speed. A sample is therefore the mean time per frame of a block of consecutive frames,
long enough for at least two detections.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import cv2

from edgekit.boards import read_conditions
from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.frame_cache import CachedSource, FrameCache
from edgekit.device.benchmark.sampling import Recorder, Run, Settling
from edgekit.device.detection import Detector
from edgekit.device.detections import FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import contract_in
from edgekit.device.frame import presentation_time_s
from edgekit.device.pipeline.latency import LatencyMeter
from edgekit.device.pipeline.loop import frame_results
from edgekit.device.pipeline.stream import create_localizer
from edgekit.device.pipeline.stream_options import StreamOptions
from edgekit.device.pipeline.threads import plan_threads
from edgekit.report.document import WarmUp

# The adaptive schedule detects at least every 10 frames.
BLOCK_FRAMES = 20
_MIN_BLOCKS = 5


def measure_loop(
    cell: Cell,
    cache: FrameCache,
    make_detector: Callable[[int], Detector],
    *,
    seconds: float,
    min_iterations: int,
    max_warm_up_s: float,
    progress: Callable[[float], None],
) -> Run:
    """Measure the loop with its default options; see `measure` for the arguments. One iteration is one frame."""
    contract, source = contract_in(cell.path), CachedSource(cache)
    plan = plan_threads(None, cell.threads, detects=contract.subject == "face")
    cv2.setNumThreads(plan.opencv)
    before = read_conditions()
    loading_s = time.perf_counter()
    classifier = Classifier(cell.path, plan.classifier)
    load_ms = (time.perf_counter() - loading_s) * 1e3
    options = StreamOptions()
    localizer = create_localizer(contract, source, options, lambda: make_detector(plan.detector))
    sampler = _BlockSampler(
        max_warm_up_s,
        lambda: Recorder(seconds, max(min_iterations, _MIN_BLOCKS * BLOCK_FRAMES), 1, progress),
        source.stop,
    )
    results = frame_results(
        source,
        localizer,
        classifier,
        LatencyMeter(),
        smooth_s=options.smooth_s,
        classify_every=options.classify_every,
        presentation_time_s=presentation_time_s(source),
        threaded=plan.staged,
    )
    with closing(results):
        for _, result in results:
            sampler.add(result)
    warm_up, recorder = sampler.warm_up, sampler.recorder
    assert warm_up is not None
    assert recorder is not None
    cache.unload()
    return Run(
        process=recorder.result(load_ms, warm_up, before, read_conditions()),
        batch=1,
        intra_op_threads=plan.classifier,
        samples_ms=tuple(recorder.samples_ms),
        detector=localizer.detector_name,
        faces_per_frame=sampler.faces / recorder.iterations,
        stages_ms={name: tuple(times) for name, times in sampler.stages_ms.items()},
        ages_ms=tuple(sampler.ages_ms),
        threads=plan,
    )


class _BlockSampler:
    """Samples the time per frame of each block, and stops the source when there are enough samples."""

    def __init__(self, max_warm_up_s: float, make_recorder: Callable[[], Recorder], stop: Callable[[], None]) -> None:
        self._settling = Settling(max_warm_up_s)
        self._make_recorder = make_recorder
        self._stop = stop
        self._frames = 0
        self._block_started_s: float | None = None
        self.warm_up: WarmUp | None = None
        self.recorder: Recorder | None = None
        self.stages_ms: dict[str, list[float]] = {}
        self.ages_ms: list[float] = []
        self.faces = 0

    def add(self, result: FrameResult) -> None:
        """Count a frame; after the last frame of a block, add the block's sample."""
        if self.recorder is not None and not self.recorder.done:
            for stage, time_ms in result.stage_ms.items():
                self.stages_ms.setdefault(stage, []).append(time_ms)
            self.ages_ms.append(result.age_ms)
            self.faces += len(result.faces)
        self._frames += 1
        if self._block_started_s is None:
            self._frames, self._block_started_s = 0, time.perf_counter()
        elif self._frames == BLOCK_FRAMES:
            now_s = time.perf_counter()
            block_ms = (now_s - self._block_started_s) * 1e3
            # The next block starts now, because the other stages continue during the bookkeeping below.
            self._frames, self._block_started_s = 0, now_s
            self._end_block(block_ms / BLOCK_FRAMES)

    def _end_block(self, frame_ms: float) -> None:
        if self.recorder is None:
            self.warm_up = self._settling.add_window([frame_ms], BLOCK_FRAMES)
            if self.warm_up is not None:
                self.recorder = self._make_recorder()
        elif not self.recorder.done and self.recorder.add(frame_ms, BLOCK_FRAMES):
            self._stop()
